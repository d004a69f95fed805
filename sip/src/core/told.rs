//! The session description that a far end was told. It is what the other side of the call has said, written anew: as long as nothing else
//! was told, that is all that is kept of it, since the other leg has it, too.

use crate::sdp::{Description, Keys, Origin, Placement};
use schema::leg::Sdp;
use std::borrow::Cow;
use std::net::IpAddr;

/// What the far end of a leg was told last. Its origin is the leg's.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Told {
    /// This.
    Text(Box<[u8]>),
    /// What the other side has said, written anew.
    Of(Sdp, Keys),
    /// The same, and the text that was made of it: it is about to be stored.
    Fresh(Box<(Box<[u8]>, Sdp, Keys)>),
}

impl Told {
    pub(super) fn fresh(text: &[u8], theirs: Sdp, keys: Keys) -> Self {
        Self::Fresh(Box::new((text.into(), theirs, keys)))
    }

    /// The text, with this origin. `None` when what it is made of cannot be read, which it was before.
    pub(super) fn text(&self, origin: Origin, sdp_address: IpAddr) -> Option<Cow<'_, [u8]>> {
        match self {
            Self::Text(text) => Some(Cow::Borrowed(text)),
            Self::Fresh(fresh) => Some(Cow::Borrowed(&fresh.0)),
            Self::Of(theirs, keys) => {
                let description = Description::parse(theirs.expose().as_bytes()).ok()?;
                Some(Cow::Owned(written(&description, origin, sdp_address, *keys).into_bytes()))
            }
        }
    }

    /// It is stored: the text is not needed before there is another reason to write it.
    pub(super) fn is_stored(&mut self) {
        if let Self::Fresh(fresh) = self {
            *self = Self::Of(fresh.1.clone(), fresh.2);
        }
    }
}

/// A session description as it leaves. Media is not anchored yet: the addresses pass as they are given.
pub(super) fn written(description: &Description<'_>, origin: Origin, sdp_address: IpAddr, keys: Keys) -> String {
    description.rewrite(origin, sdp_address, keys, |_, _| Placement::AsGiven)
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: &str = "v=0\r\no=phone 4 4 IN IP4 192.0.2.7\r\ns=a call\r\nc=IN IP4 192.0.2.7\r\nt=0 0\r\nm=audio 4000 RTP/SAVP 8 0\r\na=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:k\r\nm=audio 4002 RTP/AVP 8 0\r\na=rtpmap:8 PCMA/8000\r\na=sendonly\r\n";

    #[test]
    fn what_was_told_is_written_anew_as_it_left() {
        let (ours, origin) = (IpAddr::from([198, 51, 100, 1]), Origin { id: 7, version: 3 });
        let description = Description::parse(THEIRS.as_bytes()).expect("valid");
        let [pass, withheld] = [Keys::Pass, Keys::Withheld].map(|keys| {
            let left = written(&description, origin, ours, keys);
            let mut told = Told::fresh(left.as_bytes(), Sdp::new(THEIRS.into()), keys);
            let text = |told: &Told| told.text(origin, ours).expect("readable").into_owned();
            assert_eq!(text(&told), left.as_bytes());
            told.is_stored();
            assert!(matches!(told, Told::Of(..)), "its text is gone");
            assert_eq!(text(&told), left.as_bytes());
            let later = told.text(origin.next(), ours).expect("readable").into_owned();
            assert!(later != left.as_bytes() && super::super::offer::same_media(&later, left.as_bytes()));
            left
        });
        assert_ne!(pass, withheld);
    }
}
