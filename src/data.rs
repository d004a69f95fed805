//! The data folder: one server at a time, its keys and its database.

use crate::config::Config;
use anyhow::{Context as _, bail};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use storage::{DatabaseUrl, Keyring, MasterKey, Store};

/// Holds the folder until it is dropped.
pub struct Lock {
    _file: File,
}

/// Makes the folder if it is missing, readable by its owner only, and takes it.
///
/// # Errors
/// It cannot be written, or another server has it.
pub fn take(folder: &Path) -> anyhow::Result<Lock> {
    match lock(folder)? {
        Some(lock) => Ok(lock),
        None => bail!("data_dir {}: another ringfence server uses this folder", folder.display()),
    }
}

/// As [`take`]; `None` when a server has it.
///
/// # Errors
/// It cannot be written.
pub fn lock(folder: &Path) -> anyhow::Result<Option<Lock>> {
    let unwritable = || format!("data_dir {}: cannot be written", folder.display());
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).with_context(unwritable)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(folder.join("lock")).with_context(unwritable)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Lock { _file: file })),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(error).with_context(unwritable),
    }
}

/// Opens the keys and the database, and brings the database to this program's version.
///
/// # Errors
/// Names the file or URL that cannot be used.
pub async fn open(config: &Config) -> anyhow::Result<Store> {
    let keys = config.data_dir.join("keys.db");
    let key_file = config.key_file();
    // With keys under another master key, a new one would only hide what is missing.
    let master = if keys.exists() { MasterKey::read(&key_file) } else { MasterKey::read_or_create(&key_file) };
    let master = master.with_context(|| format!("secrets.key_file {}", key_file.display()))?;
    let keyring =
        Keyring::open(&DatabaseUrl::sqlite(&keys), &master).await.with_context(|| keys.display().to_string())?;
    let url = DatabaseUrl::parse(&config.database_url()).context("database.url")?;
    Store::open(&url, keyring).await.with_context(|| format!("database.url {url:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_server() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("data");
        let first = take(&path).expect("free");
        let error = take(&path).err().expect("taken").to_string();
        assert!(error.contains("another ringfence server"), "{error}");
        drop(first);
        assert!(take(&path).is_ok());
    }

    #[tokio::test]
    async fn what_is_stored_is_its_owners_only_whatever_the_folder_allows() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("data");
        let allow = |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changed");
        fs::create_dir(&path).expect("made");
        allow(&path, 0o755);
        let elsewhere = folder.path().join("elsewhere.db");
        let mut config = Config { data_dir: path.clone(), ..Config::for_development() };
        config.database.url = Some(format!("sqlite://{}", elsewhere.display()));
        let files = || {
            let all = [path.join("keys.db"), elsewhere.clone()].into_iter().flat_map(|file| {
                ["", "-wal", "-shm"].map(|suffix| std::path::PathBuf::from(format!("{}{suffix}", file.display())))
            });
            all.map(|file| (fs::metadata(&file).expect("there").permissions().mode() & 0o777, file)).collect::<Vec<_>>()
        };
        let _lock = take(&path).expect("free");
        let store = open(&config).await.expect("opened");
        assert!(files().iter().all(|(mode, _)| *mode == 0o600), "{:?}", files());
        // As an earlier version left them, also when it was killed.
        files().iter().for_each(|(_, file)| allow(file, 0o644));
        let again = open(&config).await.expect("opened");
        assert!(files().iter().all(|(mode, _)| *mode == 0o600), "{:?}", files());
        again.close().await;
        store.close().await;
    }
}
