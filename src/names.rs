//! Answers the SIP edge's questions for the names of carriers, in tasks beside the SIP thread.

use crate::resolvers::Resolvers;
use anyhow::Context as _;
use schema::carrier::TrunkDown;
use schema::edge::EdgeCommand;
use schema::target::GatewayName;
use sip::locate::Families;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Looks names up.
pub(crate) struct Names {
    resolvers: Arc<Resolvers>,
    edge: mpsc::Sender<EdgeCommand>,
    runtime: Handle,
}

impl Names {
    /// For the runtime it is called in. `listeners` say which kinds of addresses can be reached.
    ///
    /// # Errors
    /// The servers cannot be used.
    pub(crate) fn new(
        servers: &[SocketAddr],
        listeners: impl IntoIterator<Item = SocketAddr>,
        edge: mpsc::Sender<EdgeCommand>,
    ) -> anyhow::Result<Self> {
        let resolvers = Arc::new(Resolvers::new(servers, families(listeners)).context("sip.dns")?);
        Ok(Self { resolvers, edge, runtime: Handle::current() })
    }

    /// Answers with [`EdgeCommand::Located`]. Does not block; the SIP edge asks for each name once at a time.
    pub(crate) fn look_up(&self, name: GatewayName) {
        let (resolvers, edge) = (self.resolvers.clone(), self.edge.clone());
        self.runtime.spawn(async move {
            let found = match resolvers.current().await {
                Some(dns) => dns.locate(&name).await,
                None => Err(TrunkDown::DnsSilent),
            };
            // Closed only when the process ends.
            let _ = edge.send(EdgeCommand::Located { name, found }).await;
        });
    }
}

/// An IPv6 socket takes IPv6 alone.
fn families(listeners: impl IntoIterator<Item = SocketAddr>) -> Families {
    let mut families = Families { v4: false, v6: false };
    for address in listeners {
        families.v4 |= address.is_ipv4();
        families.v6 |= address.is_ipv6();
    }
    families
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_that_can_be_reached_are_looked_up() {
        let of = |texts: &[&str]| {
            let found = families(texts.iter().map(|text| text.parse().expect("an address")));
            (found.v4, found.v6)
        };
        assert_eq!(of(&["127.0.0.1:1", "0.0.0.0:2"]), (true, false));
        assert_eq!((of(&["[::]:1"]), of(&["[::1]:1", "10.0.0.1:1"])), ((false, true), (true, true)));
    }
}
