//! How values are written into a message: appended as they are, without the machinery of [`std::fmt`], which takes longer than the
//! writing.

use std::fmt::{self, Write as _};
use std::net::{IpAddr, SocketAddr};

/// Room for a usual value.
const USUAL: usize = 96;

/// What can be written into a message.
pub trait Written {
    /// Appends itself.
    fn write_to(&self, text: &mut String);

    /// Itself alone.
    fn written(&self) -> String {
        let mut text = String::with_capacity(USUAL);
        self.write_to(&mut text);
        text
    }
}

impl<T: Written + ?Sized> Written for &T {
    fn write_to(&self, text: &mut String) {
        (**self).write_to(text);
    }
}

impl Written for str {
    fn write_to(&self, text: &mut String) {
        text.push_str(self);
    }
}

impl Written for Box<str> {
    fn write_to(&self, text: &mut String) {
        text.push_str(self);
    }
}

impl Written for String {
    fn write_to(&self, text: &mut String) {
        text.push_str(self);
    }
}

impl Written for fmt::Arguments<'_> {
    fn write_to(&self, text: &mut String) {
        let _ = text.write_fmt(*self);
    }
}

impl Written for u64 {
    fn write_to(&self, text: &mut String) {
        let mut digits = [0; 20];
        let at = put_digits(&mut digits, *self);
        text.push_str(std::str::from_utf8(&digits[at..]).unwrap_or_default());
    }
}

/// Puts the digits of a number at the end of the room for them, and gives where they begin.
fn put_digits(room: &mut [u8], number: u64) -> usize {
    let (mut at, mut rest) = (room.len(), number);
    loop {
        at -= 1;
        room[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return at;
        }
    }
}

impl Written for u32 {
    fn write_to(&self, text: &mut String) {
        u64::from(*self).write_to(text);
    }
}

impl Written for u16 {
    fn write_to(&self, text: &mut String) {
        u64::from(*self).write_to(text);
    }
}

impl Written for u8 {
    fn write_to(&self, text: &mut String) {
        u64::from(*self).write_to(text);
    }
}

impl Written for IpAddr {
    fn write_to(&self, text: &mut String) {
        let Self::V4(ip) = self else { return format_args!("{self}").write_to(text) };
        let mut digits = [b'.'; "255.255.255.255".len()];
        let mut behind = digits.len() + 1;
        for octet in ip.octets().into_iter().rev() {
            behind = put_digits(&mut digits[..behind - 1], octet.into());
        }
        text.push_str(std::str::from_utf8(&digits[behind..]).unwrap_or_default());
    }
}

impl Written for SocketAddr {
    fn write_to(&self, text: &mut String) {
        let Self::V4(address) = self else { return format_args!("{self}").write_to(text) };
        IpAddr::V4(*address.ip()).write_to(text);
        text.push(':');
        address.port().write_to(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_are_written_as_others_write_them() {
        for number in [0, 1, 9, 10, 99, 100, 5_060, 65_535, u64::from(u32::MAX), u64::MAX] {
            assert_eq!(number.written(), number.to_string());
        }
        for text in ["0.0.0.0", "192.0.2.10", "255.255.255.255", "::", "2001:db8::1", "::ffff:192.0.2.1"] {
            let ip: IpAddr = text.parse().expect("an address");
            assert_eq!(ip.written(), ip.to_string());
            assert_eq!(SocketAddr::new(ip, 5_060).written(), SocketAddr::new(ip, 5_060).to_string());
        }
    }
}
