//! Whether a document is small and plain enough to be looked at: pure, and before anything that could be slow. Fragments
//! are counted as often as they are spread, so that a short text cannot stand for a large one.

use crate::error::{ApiError, ErrorCode};
use async_graphql::parser::types::{
    DocumentOperations, ExecutableDocument, OperationDefinition, OperationType, Selection, SelectionSet,
};
use std::collections::BTreeMap;

/// Largest body of a request and largest frame of a socket, in bytes.
pub(crate) const BODY_BYTES: usize = 64 * 1024;
/// Largest answer, in bytes.
pub(crate) const ANSWER_BYTES: usize = 1024 * 1024;
/// Most lexical tokens of a document.
const TOKENS: usize = 2_000;
/// Deepest nesting of brackets: the parser is recursive.
const BRACKETS: usize = 32;
/// Deepest nesting of fields: the price of the call of an entry of an account's ledger is as deep. What is asked for costs what
/// [`COMPLEXITY`] says.
const DEPTH: u32 = 10;
/// The same for introspection, whose standard query nests deeper. It is answered in development only.
const INTROSPECTION_DEPTH: u32 = 16;
/// Most fields, fragments spread out.
const FIELDS: u32 = 1_000;
/// Most aliases, fragments spread out.
const ALIASES: u32 = 10;
/// Most directives.
const DIRECTIVES: usize = 10;
/// Most fragments.
const FRAGMENTS: usize = 20;
/// Highest complexity: the sum of fields, each list's content as often as it is asked for. A page of 100 calls with all
/// their fields is about 5,000, and is one read of one table (D13).
pub(crate) const COMPLEXITY: usize = 8_000;
/// Mutations that guess or make secrets: once in a document, under whatever alias.
const ONCE: [&str; 2] = ["signIn", "createDeviceToken"];

/// Over which transport a document came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// `POST /graphql`: queries and mutations.
    Http,
    /// `/graphql/ws`: subscriptions.
    WebSocket,
}

/// Reads a document that keeps all limits, and says what its one operation is.
pub(crate) fn parse(text: &str, transport: Transport) -> Result<(ExecutableDocument, OperationType), ApiError> {
    scan(text)?;
    let document = async_graphql::parser::parse_query(text).map_err(|error| syntax(&error))?;
    let kind = check(&document, transport)?;
    Ok((document, kind))
}

/// Where a document stops being one, in one line and without its text.
fn syntax(error: &async_graphql::parser::Error) -> ApiError {
    let place = error.positions().next().map(|at| format!(" in line {}, column {}", at.line, at.column));
    let words = error.to_string();
    let expected = words.lines().find_map(|line| line.trim().strip_prefix("= ")).map(|text| format!(": {text}"));
    let message = format!("query: no GraphQL{}{}", place.unwrap_or_default(), expected.unwrap_or_default());
    ApiError::new(ErrorCode::InvalidInput, message)
}

fn costly(message: String) -> ApiError {
    ApiError::new(ErrorCode::QueryTooCostly, message)
}

fn at_most(what: &str, limit: impl std::fmt::Display) -> ApiError {
    costly(format!("query: at most {limit} {what}"))
}

/// Counts tokens, directives and brackets without building anything.
fn scan(text: &str) -> Result<(), ApiError> {
    let bytes = text.as_bytes();
    let (mut at, mut tokens, mut directives, mut brackets) = (0, 0, 0, 0_usize);
    while let Some(&byte) = bytes.get(at) {
        if matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b',') {
            at += 1;
            continue;
        }
        if byte == b'#' {
            at += bytes[at..].iter().position(|b| matches!(b, b'\n' | b'\r')).unwrap_or(bytes.len() - at);
            continue;
        }
        tokens += 1;
        match byte {
            b'@' => directives += 1,
            b'(' | b'[' | b'{' => brackets += 1,
            b')' | b']' | b'}' => brackets = brackets.saturating_sub(1),
            _ => {}
        }
        if tokens > TOKENS {
            return Err(at_most("tokens", TOKENS));
        }
        if brackets > BRACKETS {
            return Err(at_most("nested brackets", BRACKETS));
        }
        if directives > DIRECTIVES {
            return Err(at_most("directives", DIRECTIVES));
        }
        at += token_length(&bytes[at..]);
    }
    Ok(())
}

/// Length of the token that begins `rest`, at least 1.
fn token_length(rest: &[u8]) -> usize {
    if rest.starts_with(b"\"\"\"") {
        let end = rest[3..].windows(3).position(|w| w == b"\"\"\"");
        return end.map_or(rest.len(), |end| end + 6);
    }
    if rest[0] == b'"' {
        let mut escaped = false;
        let end = rest[1..].iter().position(|&b| {
            let ends = !escaped && b == b'"';
            escaped = !escaped && b == b'\\';
            ends
        });
        return end.map_or(rest.len(), |end| end + 2);
    }
    let is_word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.') || !b.is_ascii();
    rest.iter().position(|b| !is_word(b)).unwrap_or(rest.len()).max(1)
}

fn check(document: &ExecutableDocument, transport: Transport) -> Result<OperationType, ApiError> {
    let operation = only_operation(document)?;
    if document.fragments.len() > FRAGMENTS {
        return Err(at_most("fragments", FRAGMENTS));
    }
    let mut fragments = Fragments { document, known: BTreeMap::new() };
    let tally = fragments.tally(&operation.selection_set.node)?;
    let roots = fragments.roots(&operation.selection_set.node);
    let introspects = !roots.is_empty() && roots.iter().all(|name| name.starts_with("__"));
    let depth = if introspects { INTROSPECTION_DEPTH } else { DEPTH };
    if tally.depth > depth {
        return Err(at_most("levels of fields", depth));
    }
    if tally.aliases > ALIASES {
        return Err(at_most("aliases", ALIASES));
    }
    if let Some(name) = ONCE.iter().find(|once| roots.iter().filter(|root| root == once).count() > 1) {
        return Err(costly(format!("query: at most one {name}")));
    }
    check_transport(operation, transport)?;
    Ok(operation.ty)
}

fn only_operation(document: &ExecutableDocument) -> Result<&OperationDefinition, ApiError> {
    let mut all = match &document.operations {
        DocumentOperations::Single(operation) => return Ok(&operation.node),
        DocumentOperations::Multiple(all) => all.values(),
    };
    match (all.next(), all.next()) {
        (Some(operation), None) => Ok(&operation.node),
        _ => Err(ApiError::new(ErrorCode::InvalidInput, "query: exactly one operation in a document")),
    }
}

fn check_transport(operation: &OperationDefinition, transport: Transport) -> Result<(), ApiError> {
    let invalid = |message: &'static str| Err(ApiError::new(ErrorCode::InvalidInput, message));
    match (operation.ty, transport) {
        (OperationType::Subscription, Transport::Http) => {
            invalid("query: subscriptions go to the WebSocket /graphql/ws")
        }
        (OperationType::Subscription, Transport::WebSocket) => match operation.selection_set.node.items.as_slice() {
            [one] if matches!(one.node, Selection::Field(_)) => Ok(()),
            _ => invalid("query: a subscription has exactly one field"),
        },
        (_, Transport::WebSocket) => invalid("query: queries and mutations go to POST /graphql"),
        (_, Transport::Http) => Ok(()),
    }
}

/// What a selection holds, fragments spread out.
#[derive(Debug, Clone, Copy, Default)]
struct Tally {
    fields: u32,
    aliases: u32,
    depth: u32,
}

struct Fragments<'a> {
    document: &'a ExecutableDocument,
    /// `None` while one is being counted: meeting it again is a cycle.
    known: BTreeMap<&'a str, Option<Tally>>,
}

impl<'a> Fragments<'a> {
    fn tally(&mut self, set: &'a SelectionSet) -> Result<Tally, ApiError> {
        let mut sum = Tally::default();
        for item in &set.items {
            let one = match &item.node {
                Selection::Field(field) => {
                    let inner = self.tally(&field.node.selection_set.node)?;
                    Tally {
                        fields: inner.fields + 1,
                        aliases: inner.aliases + u32::from(field.node.alias.is_some()),
                        depth: inner.depth + 1,
                    }
                }
                Selection::InlineFragment(fragment) => self.tally(&fragment.node.selection_set.node)?,
                Selection::FragmentSpread(spread) => self.fragment(&spread.node.fragment_name.node)?,
            };
            // Each part is below the limits, so the sums cannot overflow.
            sum = Tally {
                fields: sum.fields + one.fields,
                aliases: sum.aliases + one.aliases,
                depth: sum.depth.max(one.depth),
            };
            if sum.fields > FIELDS {
                return Err(at_most("fields", FIELDS));
            }
        }
        Ok(sum)
    }

    fn fragment(&mut self, name: &'a str) -> Result<Tally, ApiError> {
        match self.known.get(name) {
            Some(Some(tally)) => return Ok(*tally),
            Some(None) => return Err(ApiError::new(ErrorCode::InvalidInput, "query: fragments in a circle")),
            None => {}
        }
        let Some(fragment) = self.document.fragments.get(name) else {
            return Ok(Tally::default()); // unknown: validation says so
        };
        self.known.insert(name, None);
        let tally = self.tally(&fragment.node.selection_set.node)?;
        self.known.insert(name, Some(tally));
        Ok(tally)
    }

    /// Names of the operation's own fields, as often as they stand there. Called after [`Self::tally`], which bounds it.
    fn roots(&self, set: &'a SelectionSet) -> Vec<&'a str> {
        let mut names = Vec::new();
        for item in &set.items {
            match &item.node {
                Selection::Field(field) => names.push(field.node.name.node.as_str()),
                Selection::InlineFragment(fragment) => names.extend(self.roots(&fragment.node.selection_set.node)),
                Selection::FragmentSpread(spread) => {
                    let fragment = self.document.fragments.get(&spread.node.fragment_name.node);
                    names.extend(fragment.into_iter().flat_map(|f| self.roots(&f.node.selection_set.node)));
                }
            }
        }
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn refused(text: &str) -> String {
        let error = parse(text, Transport::Http).expect_err(&text[..text.len().min(80)]);
        format!("{} {}", error.code.as_str(), error.message)
    }

    #[test]
    fn an_ordinary_document_passes() {
        let text =
            "query A($id: ID!) { call(id: $id) { ...F other: legs { cost { amount } } } } fragment F on Call { id }";
        assert_eq!(parse(text, Transport::Http).expect("allowed").1, OperationType::Query);
        assert_eq!(parse("mutation { signOut { ok } }", Transport::Http).expect("allowed").1, OperationType::Mutation);
        for text in [
            "{ viewer { account { calls { edges { node { explanation { rate { perMinute { amount } } } } } } } } }",
            "{ viewer { account { ledger { edges { node { call { legs { rate { perMinute { amount } } } } } } } } } }",
            "mutation { signIn { viewer { account { liveCalls { explanation { rate { perMinute { amount } } } } } } } }",
        ] {
            assert!(parse(text, Transport::Http).is_ok(), "{text}");
        }
        let text = "subscription { balance { remaining { amount } } }";
        assert_eq!(parse(text, Transport::WebSocket).expect("allowed").1, OperationType::Subscription);
    }

    #[test]
    fn each_limit_is_held_and_named() {
        let nested = format!("{}id{}", "{ a ".repeat(11), " }".repeat(11));
        let brackets = format!("{{ a(x: {}1{}) }}", "[".repeat(40), "]".repeat(40));
        let aliases = format!("{{ {} }}", (0..11).map(|n| format!("a{n}: viewer {{ id }} ")).collect::<String>());
        let spread = format!("{{ {} }} fragment F on Query {{ a: viewer {{ id }} }}", "...F ".repeat(11));
        let directives = format!("{{ viewer {} {{ id }} }}", "@skip(if: false) ".repeat(11));
        let bomb: String = (0..15).map(|n| format!("fragment F{n} on A {{ ...F{0} ...F{0} }} ", n + 1)).collect();
        let bomb = format!("{{ a {{ ...F0 }} }} {bomb} fragment F15 on A {{ id }}");
        let fragments: String = (0..21).map(|n| format!("fragment F{n} on A {{ id }} ")).collect();
        for (text, says) in [
            (nested, "QUERY_TOO_COSTLY query: at most 10 levels of fields"),
            (brackets, "QUERY_TOO_COSTLY query: at most 32 nested brackets"),
            (format!("{{ {} }}", "id ".repeat(2_000)), "QUERY_TOO_COSTLY query: at most 2000 tokens"),
            (format!("{{ {} }}", "id ".repeat(1_001)), "QUERY_TOO_COSTLY query: at most 1000 fields"),
            (aliases, "QUERY_TOO_COSTLY query: at most 10 aliases"),
            (spread, "QUERY_TOO_COSTLY query: at most 10 aliases"),
            (directives, "QUERY_TOO_COSTLY query: at most 10 directives"),
            (bomb, "QUERY_TOO_COSTLY query: at most 1000 fields"),
            (format!("{{ id }} {fragments}"), "QUERY_TOO_COSTLY query: at most 20 fragments"),
            ("mutation { signIn signIn }".to_owned(), "QUERY_TOO_COSTLY query: at most one signIn"),
            ("mutation { a: signIn ... { b: signIn } }".to_owned(), "QUERY_TOO_COSTLY query: at most one signIn"),
            ("{ ...A } fragment A on Query { ...A }".to_owned(), "INVALID_INPUT query: fragments in a circle"),
            ("query A { a } query B { b }".to_owned(), "INVALID_INPUT query: exactly one operation"),
            ("subscription { balance { id } }".to_owned(), "INVALID_INPUT query: subscriptions go to"),
            ("{".to_owned(), "INVALID_INPUT query: no GraphQL in line 1, column 2: expected selection"),
            (String::new(), "INVALID_INPUT query: no GraphQL in line 1, column 1: expected executable_definition"),
        ] {
            let said = refused(&text);
            assert!(said.starts_with(says), "{said}");
        }
        for text in ["{ viewer { id } }", "subscription { balance { a } liveCalls { b } }", "subscription { ...A }"] {
            assert!(parse(text, Transport::WebSocket).is_err(), "{text}");
        }
    }

    #[test]
    fn strings_and_comments_are_no_tokens_of_their_own() {
        let text = format!("{{ a(x: \"{} \\\" {{{{\", y: \"\"\"{{ \"{{ \"\"\") }} # {{{{{{", "{ ".repeat(3_000));
        assert!(scan(&text).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "\\PC{0,200}", braces in "[{}()\\[\\]\"a:@. ]{0,400}") {
            let _ = parse(&text, Transport::Http);
            let _ = parse(&braces, Transport::WebSocket);
        }
    }
}
