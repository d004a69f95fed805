//! A phone that only registers, and remembers the challenge it was given last, as phones do.

use bytes::Bytes;
use sip::digest::Challenge;
use sip::message::{HeaderName, Message, Method, NameAddr, RequestBuilder, Transport, Uri, Via};
use std::net::SocketAddr;

/// Whom phones register with.
pub(crate) struct Domain {
    pub(crate) server: SocketAddr,
    pub(crate) name: String,
}

/// What an answer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Once more, with credentials for this challenge.
    Challenged,
    /// The final status.
    Final(u16),
}

/// One of many: its number is in its Call-ID.
pub(crate) struct Phone {
    number: usize,
    username: String,
    password: String,
    cseq: u32,
    /// The last challenge, with how often it was answered.
    challenge: Option<(Challenge, u32)>,
    /// Whether the last request was an answer to a challenge that had not been answered before.
    answered_anew: bool,
}

impl Phone {
    pub(crate) const fn new(number: usize, username: String, password: String) -> Self {
        Self { number, username, password, cseq: 0, challenge: None, answered_anew: false }
    }

    /// Whose answer this is.
    pub(crate) fn number_of(answer: &Message) -> Option<usize> {
        answer.call_id().strip_prefix("phone-")?.parse().ok()
    }

    /// Its next REGISTER, from this address.
    pub(crate) fn register(&mut self, domain: &Domain, own: SocketAddr, expires_s: u32) -> Bytes {
        self.cseq += 1;
        let (number, cseq) = (self.number, self.cseq);
        let aor = Uri::sip(Some(&self.username), &domain.name, None).expect("a URI");
        let target = Uri::sip(None, &domain.name, None).expect("a URI");
        let host = own.ip().to_string();
        let branch = format!("z9hG4bK{number}.{cseq}");
        let via = Via::new(Transport::Udp, &host, Some(own.port()), &branch).expect("a Via");
        let from = NameAddr::new(aor.clone()).with_tag(&format!("t{number}")).expect("a tag");
        let mut builder = RequestBuilder::new(Method::Register, target.clone())
            .via(&via)
            .from(&from)
            .to(&NameAddr::new(aor))
            .call_id(&format!("phone-{number}"))
            .cseq(cseq)
            .contact(&NameAddr::new(Uri::of_address(Some(&self.username), own)))
            .expires(expires_s);
        self.answered_anew = false;
        if let Some((challenge, uses)) = &mut self.challenge {
            *uses += 1;
            self.answered_anew = *uses == 1;
            let text = challenge.answer(&self.username, &self.password, "REGISTER", target.as_str(), "cnonce", *uses);
            builder = builder.header(HeaderName::Authorization, &text);
        }
        builder.build().expect("built")
    }

    /// Takes the answer to its last request; nothing when it answers another one.
    pub(crate) fn take(&mut self, answer: &Message) -> Option<Answer> {
        if answer.cseq().0 != self.cseq {
            return None;
        }
        let status = answer.status()?;
        let challenge = if status == 401 { Challenge::best_of(answer) } else { None };
        match challenge {
            // A fresh challenge was answered, and not rightly.
            Some(_) if self.answered_anew => Some(Answer::Final(status)),
            Some(challenge) => {
                self.challenge = Some((challenge, 0));
                Some(Answer::Challenged)
            }
            None => Some(Answer::Final(status)),
        }
    }
}
