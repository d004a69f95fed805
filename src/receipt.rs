//! A call's CDR and its account's ledger as text, for the terminal of whoever runs the server.

use schema::call::Cdr;
use schema::id::AccountKey;
use schema::money::Currency;
use storage::{CallFilter, PostedTransfer, Store};

/// Ledger lines shown.
const LINES: u32 = 5;

/// The word the API uses.
#[must_use]
pub(crate) fn word(value: &impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The account's last call and the ledger around it; nothing before its first call.
///
/// # Errors
/// The store failed.
pub(crate) async fn last_call(store: &Store, account: AccountKey) -> anyhow::Result<Vec<String>> {
    let calls = store.calls_page(account, None, 1, &CallFilter::default()).await?;
    let Some(cdr) = calls.first() else { return Ok(Vec::new()) };
    let ledger = store.ledger_page(account, None, LINES).await?;
    let mut lines = call_lines(cdr);
    lines.push(String::new());
    lines.push(String::from("Ledger, newest first"));
    lines.extend(ledger.iter().map(|posted| ledger_line(posted, cdr.call.currency)));
    Ok(lines)
}

fn call_lines(cdr: &Cdr) -> Vec<String> {
    let call = &cdr.call;
    let line = |name: &str, value: String| format!("  {name:<14} {value}");
    let mut lines = vec![format!("CDR of call {}", call.id)];
    lines.push(line("destination", call.destination.as_ref().map_or_else(String::new, |n| n.as_str().to_owned())));
    lines.push(line("caller ID", call.presented_number.as_ref().map_or_else(String::new, |n| n.as_str().to_owned())));
    lines.push(line("state", word(&call.state)));
    if let Some(refusal) = &call.explanation.refusal {
        lines.push(line("refused", format!("{}: {}", refusal.code.as_str(), refusal.message)));
    }
    if let Some(rate) = call.rate() {
        let per_minute = format!("{} {} a minute, {}", rate.terms.per_minute, call.currency, rate.destination);
        lines.push(line("rate", per_minute));
    }
    lines.push(line("route", call.route.clone().unwrap_or_default()));
    lines.push(line("talk time", format!("{} ms, {} s billed", cdr.talk_ms, call.billed_seconds)));
    lines.push(line("charged", format!("{} {}", cdr.charged, call.currency)));
    if let Some(hangup) = &call.hangup {
        lines.push(line("ended by", format!("{}: {}", word(&hangup.side), hangup.reason)));
    }
    lines
}

fn ledger_line(posted: &PostedTransfer, currency: Currency) -> String {
    let transfer = &posted.transfer;
    let delta = transfer.customer_delta();
    let kind = transfer.kind.as_str();
    format!(
        "  {kind:<12} {:>12} {currency}   balance {:>12}   {}",
        delta.to_string(),
        transfer.balance_after.to_string(),
        transfer.description
    )
}
