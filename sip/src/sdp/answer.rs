//! What was said last, be it an offer of ours, as the answer to an offer that changes nothing.

use super::rewrite::is_direction;
use super::{Attribute, Description, Media};

/// Whether whoever says it sends and receives.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Direction {
    sends: bool,
    receives: bool,
}

impl Direction {
    /// As the medium says, else as its session does, else both ways (RFC 8866 §6.7).
    fn of(media: &[Attribute<'_>], session: &[Attribute<'_>]) -> Self {
        let said = |attributes: &[Attribute<'_>]| {
            attributes.iter().find(|attribute| is_direction(attribute.name)).map(|attribute| attribute.name.to_owned())
        };
        let name = said(media).or_else(|| said(session)).unwrap_or_default();
        Self { sends: !matches!(&*name, "recvonly" | "inactive"), receives: !matches!(&*name, "sendonly" | "inactive") }
    }

    const fn name(self) -> &'static str {
        match (self.sends, self.receives) {
            (true, true) => "sendrecv",
            (true, false) => "sendonly",
            (false, true) => "recvonly",
            (false, false) => "inactive",
        }
    }
}

impl Description<'_> {
    /// Makes it an answer to this offer: a stream that is off there is off (RFC 3264 §6), nothing is sent where nothing is
    /// received (§6.1), of the keys the one remains that was taken (RFC 4568 §5.1.2), and who begins with DTLS is said (RFC 5763
    /// §5).
    pub(crate) fn answer(&mut self, offer: &Description<'_>) {
        let of_session = part_in_setup(&offer.attributes);
        let of_any = of_session.or_else(|| offer.media.iter().find_map(|media| part_in_setup(&media.attributes)));
        take_part(&mut self.attributes, of_any);
        for (ours, theirs) in self.media.iter_mut().zip(&offer.media) {
            if theirs.port == 0 {
                ours.port = 0;
            }
            if ours.port == 0 {
                continue;
            }
            let they = Direction::of(&theirs.attributes, &offer.attributes);
            let we = Direction::of(&ours.attributes, &self.attributes);
            let agreed = Direction { sends: we.sends && they.receives, receives: we.receives && they.sends };
            if agreed != we {
                ours.attributes.retain(|attribute| !is_direction(attribute.name));
                ours.attributes.push(Attribute { name: agreed.name(), value: None });
            }
            keep_one_key(ours, theirs);
            take_part(&mut ours.attributes, part_in_setup(&theirs.attributes).or(of_session));
        }
    }
}

/// The part that is left to us in `a=setup`.
fn part_in_setup(theirs: &[Attribute<'_>]) -> Option<&'static str> {
    match theirs.iter().find(|attribute| attribute.name == "setup")?.value? {
        "active" => Some("passive"),
        "passive" | "actpass" => Some("active"),
        _ => None,
    }
}

/// Where we left it open.
fn take_part(ours: &mut [Attribute<'_>], part: Option<&'static str>) {
    let open = ours.iter_mut().filter(|attribute| attribute.name == "setup" && attribute.value == Some("actpass"));
    open.for_each(|attribute| attribute.value = part.or(attribute.value));
}

fn is_key(attribute: &Attribute<'_>) -> bool {
    attribute.name == "crypto"
}

/// `tag suite inline:key …`
fn tag<'a>(key: &Attribute<'a>) -> Option<&'a str> {
    key.value?.split(' ').next()
}

fn keep_one_key(ours: &mut Media<'_>, theirs: &Media<'_>) {
    let is_taken = |key: &Attribute<'_>| theirs.attributes.iter().any(|their| is_key(their) && tag(their) == tag(key));
    let Some(taken) = ours.attributes.iter().position(|attribute| is_key(attribute) && is_taken(attribute)) else {
        return;
    };
    let mut at = 0;
    ours.attributes.retain(|attribute| {
        at += 1;
        !is_key(attribute) || at - 1 == taken
    });
}
