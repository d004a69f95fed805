//! Development mode: the demo world, and what the first screen says.

use crate::world::World;
use schema::entropy::Entropy;
use std::fmt;
use std::net::SocketAddr;

/// SIP username of the demo customer.
pub const SIP_USERNAME: &str = "demo";
/// Sign-in of the demo customer.
pub const CUSTOMER_EMAIL: &str = "demo@example.com";
/// Sign-in of the demo operator.
pub const OPERATOR_EMAIL: &str = "operator@example.com";

const RETAIL: &str = "\
prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until
1,United States and Canada,0.30,0,0,1,0,,
44,United Kingdom,0.12,0,0,1,0,,
447,United Kingdom mobile,0.30,0,0,1,0,,
447700900,Test carrier (numbers for fiction),0.48,0,0,1,0,,
";

const WHOLESALE: &str = "\
prefix,destination,rate_per_minute,connect_fee,minimum_s,increment_s,grace_s,effective_from,effective_until
1,United States and Canada,0.01,0,0,1,0,,
44,United Kingdom,0.01,0,0,1,0,,
";

/// The passwords of a first start: shown once, stored only as hashes.
pub struct Secrets {
    customer: String,
    operator: String,
    sip: String,
}

impl Secrets {
    /// New ones: 20 characters, 119 bits each.
    pub fn generate(entropy: &mut Entropy) -> Self {
        Self { customer: entropy.word(20), operator: entropy.word(20), sip: entropy.word(20) }
    }
}

/// The demo world: a carrier at `test_carrier`, two rate decks and, at the first start, an operator and a customer.
///
/// # Errors
/// Never for the texts above.
pub fn world(test_carrier: SocketAddr, people: Option<&Secrets>) -> anyhow::Result<World> {
    let mut text = format!(
        r#"
        [[rate_deck]]
        name = "Retail"
        file = "retail.csv"
        currency = "EUR"
        [[rate_deck]]
        name = "Wholesale"
        file = "wholesale.csv"
        currency = "EUR"
        [[carrier]]
        name = "Test carrier"
        gateway = "udp:{test_carrier}"
        currency = "EUR"
        deck = "Wholesale"
        max_channels = 20000
        max_cps = 10000
        "#
    );
    if let Some(secrets) = people {
        text += &format!(
            r#"
            [[operator]]
            email = "{OPERATOR_EMAIL}"
            password = "{operator}"
            roles = ["admin"]
            [[account]]
            email = "{CUSTOMER_EMAIL}"
            username = "Demo customer"
            password = "{customer}"
            country = "GB"
            time_zone = "Europe/London"
            currency = "EUR"
            opening_credit = "10.00"
            rate_deck = "Retail"
            sip_username = "{SIP_USERNAME}"
            sip_password = "{sip}"
            caller_ids = [{{ number = "+442079460123", evidence = "assigned" }}]
            limits = {{ live_calls = 5, calls_per_minute = 60 }}
            "#,
            operator = secrets.operator,
            customer = secrets.customer,
            sip = secrets.sip,
        );
    }
    let mut world = World::parse(&text)?;
    for deck in &mut world.rate_decks {
        deck.csv = String::from(if deck.name == "Retail" { RETAIL } else { WHOLESALE });
    }
    Ok(world)
}

/// What a start says, in one screen.
pub struct Screen<'a> {
    /// Of the dashboard.
    pub url: String,
    /// The data folder.
    pub data_dir: String,
    /// SIP listeners with their transports.
    pub sip: Vec<(&'static str, SocketAddr)>,
    /// The SIP domain.
    pub domain: String,
    /// Passwords, at the first start only.
    pub secrets: Option<&'a Secrets>,
    /// What was found at a later start: accounts and live calls.
    pub found: (u64, u64),
    /// What the test carrier does, by number.
    pub numbers: Vec<(String, String)>,
}

impl fmt::Display for Screen<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "Ringfence is running in development mode; data in {}, everything on loopback.\n", self.data_dir)?;
        writeln!(f, "  Dashboard   {}", self.url)?;
        match self.secrets {
            Some(secrets) => {
                writeln!(f, "  Sign in     {CUSTOMER_EMAIL}       password {}   (customer)", secrets.customer)?;
                writeln!(f, "              {OPERATOR_EMAIL}   password {}   (operator)", secrets.operator)?;
            }
            None => writeln!(
                f,
                "  Sign in     {CUSTOMER_EMAIL} or {OPERATOR_EMAIL}, passwords as shown at the first start"
            )?,
        }
        for (transport, address) in &self.sip {
            writeln!(f, "  SIP server  {address} ({transport}), domain {}", self.domain)?;
        }
        match self.secrets {
            Some(secrets) => writeln!(f, "  SIP user    {SIP_USERNAME}   password {}", secrets.sip)?,
            None => writeln!(f, "  SIP user    {SIP_USERNAME}, password as shown at the first start")?,
        }
        for (n, (number, behaviour)) in self.numbers.iter().enumerate() {
            writeln!(f, "  {}{number:<14} {behaviour}", if n == 0 { "Dial        " } else { "            " })?;
        }
        writeln!(f)?;
        if self.secrets.is_some() {
            writeln!(
                f,
                "The passwords are shown this once. Place a call: ringfence demo call (cargo run --release -- demo call)"
            )
        } else {
            let (accounts, calls) = self.found;
            writeln!(
                f,
                "Found {accounts} accounts and {calls} live calls. To begin anew, stop and delete the data folder."
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_demo_world_is_a_valid_world() {
        let secrets = Secrets::generate(&mut Entropy::from_number(1));
        let world = world(SocketAddr::from(([127, 0, 0, 1], 5090)), Some(&secrets)).expect("valid");
        assert_eq!((world.accounts.len(), world.operators.len(), world.carriers.len()), (1, 1, 1));
        for deck in &world.rate_decks {
            assert!(actors::deck_file::read(&deck.csv).is_ok(), "{}", deck.name);
        }
    }

    #[test]
    fn a_second_start_prints_no_secret() {
        let secrets = Secrets::generate(&mut Entropy::from_number(1));
        let screen = |secrets| {
            Screen {
                url: String::from("http://127.0.0.1:8080"),
                data_dir: String::from("data"),
                sip: vec![("UDP", SocketAddr::from(([127, 0, 0, 1], 5060)))],
                domain: String::from("localhost"),
                secrets,
                found: (1, 0),
                numbers: vec![(String::from("+447700900000"), String::from("answers at once"))],
            }
            .to_string()
        };
        assert!(screen(Some(&secrets)).contains(&secrets.sip));
        let second = screen(None);
        assert!(![&secrets.sip, &secrets.customer, &secrets.operator].iter().any(|s| second.contains(*s)));
    }
}
