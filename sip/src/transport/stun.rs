//! STUN Binding requests on the SIP port, by which a phone behind a NAT keeps its UDP flow open and learns that it has moved (RFC 5626
//! §4.4.2 and §8, RFC 5389). They are answered from the datagram alone: nothing is kept, nobody has to be known, and the answer
//! is hardly larger than the request. Pure.

use std::net::{IpAddr, SocketAddr};

const HEADER: usize = 20;
const COOKIE: [u8; 4] = [0x21, 0x12, 0xa4, 0x42];
const BINDING_REQUEST: u16 = 0x0001;
const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
/// Attributes that a request may have though they mean nothing here, since nobody is asked for credentials: USERNAME,
/// MESSAGE-INTEGRITY, REALM, NONCE.
const IGNORED: [u16; 4] = [0x0006, 0x0008, 0x0014, 0x0015];
/// From here on a server that does not know an attribute ignores it (RFC 5389 §15).
const OPTIONAL: u16 = 0x8000;
/// Unknown attributes that are named in an answer.
const NAMED_MAX: usize = 4;

/// Whether this is a STUN message: no SIP message begins with such a byte, and few other things have the cookie and the length.
pub(super) fn is_message(datagram: &[u8]) -> bool {
    datagram.len() >= HEADER
        && datagram[0] < 0x40
        && datagram[4..8] == COOKIE
        && usize::from(u16_at(datagram, 2)) == datagram.len() - HEADER
        && datagram.len().is_multiple_of(4)
}

/// The answer to a STUN message from `source`; none to what is no Binding request, or cannot be read.
pub(super) fn answer(message: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    if u16_at(message, 0) != BINDING_REQUEST {
        return None;
    }
    let unknown = unknown_attributes(&message[HEADER..])?;
    let transaction = &message[4..HEADER];
    if unknown.is_empty() {
        let address = mapped_address(source, transaction);
        return Some(written(BINDING_SUCCESS, transaction, &[(XOR_MAPPED_ADDRESS, address)]));
    }
    let error = [&[0, 0, 4, 20][..], b"Unknown Attribute"].concat();
    let names = unknown.iter().flat_map(|name| name.to_be_bytes()).collect();
    Some(written(BINDING_ERROR, transaction, &[(ERROR_CODE, error), (UNKNOWN_ATTRIBUTES, names)]))
}

/// Those that must be understood and are not, the first few. `None`: the list cannot be read.
fn unknown_attributes(mut list: &[u8]) -> Option<Vec<u16>> {
    let mut unknown = Vec::new();
    while !list.is_empty() {
        let (head, rest) = list.split_at_checked(4)?;
        let (name, length) = (u16_at(head, 0), usize::from(u16_at(head, 2)));
        list = rest.get(length.next_multiple_of(4)..)?;
        if name < OPTIONAL && !IGNORED.contains(&name) && unknown.len() < NAMED_MAX {
            unknown.push(name);
        }
    }
    Some(unknown)
}

/// XOR-MAPPED-ADDRESS (RFC 5389 §15.2): NATs that rewrite addresses wherever they see them leave it alone. `mask` is the cookie and
/// the transaction's number.
fn mapped_address(source: SocketAddr, mask: &[u8]) -> Vec<u8> {
    let (family, octets) = match source.ip() {
        IpAddr::V4(ip) => (1, ip.octets().to_vec()),
        IpAddr::V6(ip) => (2, ip.octets().to_vec()),
    };
    let masked = |bytes: &[u8]| bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect::<Vec<_>>();
    [vec![0, family], masked(&source.port().to_be_bytes()), masked(&octets)].concat()
}

fn written(kind: u16, transaction: &[u8], attributes: &[(u16, Vec<u8>)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (name, value) in attributes {
        body.extend(name.to_be_bytes());
        body.extend(length_of(value));
        body.extend(value);
        body.resize(body.len().next_multiple_of(4), 0);
    }
    [&kind.to_be_bytes()[..], &length_of(&body), transaction, &body].concat()
}

/// Of a few attributes of ours, which are short.
fn length_of(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX).to_be_bytes()
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the examples in RFC 5769 §2.
    const NUMBER: [u8; 12] = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn message(kind: u16, attributes: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes()[..], &length_of(attributes), &COOKIE, &NUMBER, attributes].concat()
    }

    #[test]
    fn a_binding_request_is_told_its_address_as_in_rfc_5769() {
        let v4 = [0x00, 0x20, 0x00, 0x08, 0x00, 0x01, 0xa1, 0x47, 0xe1, 0x12, 0xa6, 0x43];
        let v6 = [
            0x00, 0x20, 0x00, 0x14, 0x00, 0x02, 0xa1, 0x47, 0x01, 0x13, 0xa9, 0xfa, 0xa5, 0xd3, 0xf1, 0x79, 0xbc, 0x25,
            0xf4, 0xb5, 0xbe, 0xd2, 0xb9, 0xd9,
        ];
        // SOFTWARE, as in the example, is optional; who the peer says it is does not matter.
        let software = [0x80, 0x22, 0x00, 0x03, b'a', b'b', b'c', b' '];
        let username = [0x00, 0x06, 0x00, 0x01, b'u', 0, 0, 0];
        for attributes in [&[][..], &software, &username, &[software, username].concat()] {
            let request = message(BINDING_REQUEST, attributes);
            assert!(is_message(&request));
            for (source, mapped) in
                [("192.0.2.1:32853", &v4[..]), ("[2001:db8:1234:5678:11:2233:4455:6677]:32853", &v6[..])]
            {
                let told = answer(&request, source.parse().expect("an address")).expect("answered");
                assert_eq!(told, message(BINDING_SUCCESS, mapped));
            }
        }
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named() {
        let source = SocketAddr::from(([192, 0, 2, 1], 5060));
        // CHANGE-REQUEST, and more of the kind than are named.
        let one = [0x00, 0x03, 0x00, 0x04, 0, 0, 0, 6];
        let told = answer(&message(BINDING_REQUEST, &one), source).expect("answered");
        let error = [&[0x00, 0x09, 0x00, 0x15, 0, 0, 4, 20][..], b"Unknown Attribute\0\0\0"].concat();
        assert_eq!(told, message(BINDING_ERROR, &[&error[..], &[0x00, 0x0a, 0x00, 0x02, 0x00, 0x03, 0, 0]].concat()));
        for count in [NAMED_MAX, NAMED_MAX + 1] {
            let told = answer(&message(BINDING_REQUEST, &one.repeat(count)), source).expect("answered");
            let names = [0x00, 0x03].repeat(NAMED_MAX);
            let listed = [&[0x00, 0x0a, 0x00, 0x08][..], &names].concat();
            assert_eq!(told, message(BINDING_ERROR, &[&error[..], &listed].concat()));
        }
    }

    #[test]
    fn nothing_else_is_answered() {
        let source = SocketAddr::from(([192, 0, 2, 1], 5060));
        // An indication, an answer of somebody, attributes that end too soon.
        for kind in [0x0011, BINDING_SUCCESS, BINDING_ERROR, 0x0003] {
            assert_eq!(answer(&message(kind, &[]), source), None);
        }
        assert_eq!(answer(&message(BINDING_REQUEST, &[0x80, 0x22, 0x00, 0x05, 0, 0, 0, 0]), source), None);
        let request = message(BINDING_REQUEST, &[]);
        for at in [0, 2, 3, 4, 7] {
            let mut other = request.clone();
            other[at] ^= 0x40;
            assert!(!is_message(&other), "byte {at}");
        }
        assert!(!is_message(&request[..19]) && !is_message(&[&request[..], &[0]].concat()));
        assert!(!is_message(b"OPTIONS sip:a@b SIP/2.0\r\n\r\n"));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_attributes_never_panic_and_answers_stay_small(attributes in proptest::collection::vec(0_u8.., 0..64)) {
            let request = message(BINDING_REQUEST, &attributes[..attributes.len() / 4 * 4]);
            let told = answer(&request, SocketAddr::from(([0; 8], 1))).unwrap_or_default();
            proptest::prop_assert!(told.len() <= 64 && (told.is_empty() || is_message(&told)));
        }
    }
}
