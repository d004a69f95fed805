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
