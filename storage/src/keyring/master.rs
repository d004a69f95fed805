//! The master key: 32 random bytes in a file of their own (`secrets.key_file`), as base64 or hexadecimal text.

use ring::rand::{SecureRandom, SystemRandom};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Wraps all data keys. It has no `Debug` that shows it.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    /// The file could not be read or written.
    #[error("the key file cannot be used: {0}")]
    Io(#[from] io::Error),
    /// Others could read it.
    #[error("the key file must be readable by its owner only (mode 0400)")]
    Exposed,
    /// It does not hold a key.
    #[error("the key file must hold 32 bytes as base64 (44 characters) or hexadecimal (64 characters)")]
    Format,
    /// The system gave no random bytes.
    #[error("the system gave no random bytes")]
    NoRandom,
}

impl MasterKey {
    /// From bytes made elsewhere; tests.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// It cannot be read, others may read it, or it holds something else.
    pub fn read(path: &Path) -> Result<Self, MasterKeyError> {
        let mode = fs::metadata(path)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(MasterKeyError::Exposed);
        }
        let mut text = fs::read_to_string(path)?;
        let key = parse(text.trim()).map(Self).ok_or(MasterKeyError::Format);
        text.zeroize();
        key
    }

    /// Makes a key file with mode 0400, durably. An existing file is never replaced.
    ///
    /// # Errors
    /// It exists or cannot be written.
    pub fn create(path: &Path) -> Result<Self, MasterKeyError> {
        let mut bytes = [0; 32];
        SystemRandom::new().fill(&mut bytes).map_err(|_| MasterKeyError::NoRandom)?;
        let key = Self(bytes);
        let mut text: String = key.0.iter().map(|byte| format!("{byte:02x}")).collect();
        text.push('\n');
        let written = create_file(path, 0o400, text.as_bytes());
        text.zeroize();
        written?;
        Ok(key)
    }

    /// Reads the key file, or makes it when it is missing: development mode.
    ///
    /// # Errors
    /// As [`Self::read`] and [`Self::create`].
    pub fn read_or_create(path: &Path) -> Result<Self, MasterKeyError> {
        if path.exists() { Self::read(path) } else { Self::create(path) }
    }

    pub(super) const fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey")
    }
}

/// Makes a file with this content and mode, durably: it is there whole, or not at all, also when the disk is full or the process is
/// killed. An existing file is never replaced. What a process before left of its own try (`.new`) is removed.
///
/// # Errors
/// It exists or cannot be written.
pub fn create_file(path: &Path, mode: u32, content: &[u8]) -> io::Result<()> {
    let new = path.with_added_extension("new");
    let _ = fs::remove_file(&new);
    let write = || {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        // Unlike a rename this fails when somebody else has made it meanwhile.
        fs::hard_link(&new, path)
    };
    let written = write();
    let _ = fs::remove_file(&new);
    written?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

fn parse(text: &str) -> Option<[u8; 32]> {
    let mut bytes = if text.len() == 64 { from_hex(text) } else { from_base64(text) }?;
    let key = <[u8; 32]>::try_from(bytes.as_slice()).ok();
    bytes.zeroize();
    key
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16);
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::try_from(digit(pair[0])? << 4 | digit(*pair.get(1)?)?).ok()).collect()
}

/// RFC 4648 §4, with or without padding.
fn from_base64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for byte in text.trim_end_matches('=').bytes() {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0xffff;
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_from_hexadecimal_and_base64() {
        let bytes: [u8; 32] = std::array::from_fn(|i| u8::try_from(i * 8).expect("small"));
        let hex: String = bytes.iter().map(|b| format!("{b:02X}")).collect();
        assert_eq!(parse(&hex), Some(bytes));
        assert_eq!(parse("AAgQGCAoMDhASFBYYGhweICIkJigqLC4wMjQ2ODo8Pg="), Some(bytes));
        for bad in ["", "abc", "AAgQGCAoMDhASFBYYGhweICIkJigqLC4wMjQ2ODo8P!=", &"g".repeat(64), &"A".repeat(48)] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_file_is_there_whole_or_not_at_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, begun) = (folder.path().join("key"), folder.path().join("key.new"));
        // Of a process that was killed while it wrote.
        fs::write(&begun, "hal").expect("written");
        fs::set_permissions(&begun, fs::Permissions::from_mode(0o400)).expect("changed");
        create_file(&path, 0o400, b"whole").expect("made");
        assert_eq!(fs::read(&path).expect("there"), b"whole");
        let error = create_file(&path, 0o400, b"another").expect_err("it exists");
        assert_eq!((error.kind(), fs::read(&path).expect("there")), (io::ErrorKind::AlreadyExists, b"whole".to_vec()));
        assert!(create_file(&folder.path().join("nowhere/key"), 0o400, b"").is_err());
        let names = fs::read_dir(folder.path()).expect("a folder").map(|entry| entry.expect("an entry").file_name());
        assert_eq!(names.collect::<Vec<_>>(), ["key"], "nothing else is left");
    }

    #[test]
    fn a_key_file_is_made_once_and_kept_private() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("key");
        let made = MasterKey::read_or_create(&path).expect("made");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o777, 0o400);
        assert_eq!(MasterKey::read_or_create(&path).expect("read").0, made.0);
        assert!(MasterKey::create(&path).is_err());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("changed");
        assert!(matches!(MasterKey::read(&path), Err(MasterKeyError::Exposed)));
        assert_eq!(format!("{made:?}"), "MasterKey");
    }
}
