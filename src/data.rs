//! The data folder: one server at a time, its keys and its database.

use crate::config::Config;
use anyhow::{Context as _, anyhow, bail};
use std::fs::{self, File, TryLockError};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use storage::{DatabaseUrl, Keyring, MasterKey, Store, StoreError};

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

/// Opens the keys and the database, and brings the database to this program's version. Keys are made for a new database only.
///
/// # Errors
/// Names the file or URL that cannot be used, or that the two do not belong together.
pub async fn open(config: &Config) -> anyhow::Result<Store> {
    let keys = config.data_dir.join("keys.db");
    let url = DatabaseUrl::parse(&config.database_url()).context("database.url")?;
    let unusable = || format!("database.url {url:?}");
    let apart = || {
        let folder = config.data_dir.display();
        format!(
            "data_dir {folder}: keys.db and database.url {url:?} do not belong together: restore both from the backup"
        )
    };
    if !keys.exists() && Store::is_sealed(&url).await.with_context(unusable)? {
        return Err(anyhow!("keys.db is missing").context(apart()));
    }
    let key_file = config.key_file();
    // With keys under another master key, a new one would only hide what is missing.
    let master = if keys.exists() { MasterKey::read(&key_file) } else { MasterKey::read_or_create(&key_file) };
    let master = master.with_context(|| format!("secrets.key_file {}", key_file.display()))?;
    let keyring =
        Keyring::open(&DatabaseUrl::sqlite(&keys), &master).await.with_context(|| keys.display().to_string())?;
    Store::open(&url, keyring).await.map_err(|error| {
        let names = if matches!(error, StoreError::OtherKeys) { apart() } else { unusable() };
        anyhow!(error).context(names)
    })
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

    /// Configuration with the database in one folder, and keys in another.
    fn apart(data: &Path, database: &Path) -> Config {
        let mut config = Config { data_dir: data.to_owned(), ..Config::for_development() };
        config.database.url = Some(format!("sqlite://{}", database.join("elsewhere.db").display()));
        config
    }

    #[tokio::test]
    async fn a_database_is_not_opened_with_keys_that_are_not_its_own() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (first, second) = (folder.path().join("first"), folder.path().join("second"));
        let at_home = apart(&first, folder.path());
        let lock = take(&first).expect("free");
        open(&at_home).await.expect("new").close().await;
        open(&at_home).await.expect("its own keys").close().await;
        drop(lock);
        let refused = async |config: &Config| {
            let error = open(config).await.expect_err("refused");
            let error = format!("{error:#}");
            for name in ["keys.db", "elsewhere.db", "do not belong together: restore both from the backup"] {
                assert!(error.contains(name), "{error}");
            }
            assert!(error.starts_with(&format!("data_dir {}:", config.data_dir.display())), "{error}");
        };
        // The data folder is lost: no new keys are made, so that those of the backup can be put there.
        let moved = apart(&second, folder.path());
        let _lock = take(&second).expect("free");
        refused(&moved).await;
        let left: Vec<_> = fs::read_dir(&second).expect("readable").flatten().map(|file| file.file_name()).collect();
        assert_eq!(left, ["lock"]);
        // Keys of another database.
        open(&apart(&second, &second)).await.expect("new").close().await;
        refused(&moved).await;
        open(&at_home).await.expect("its own keys, still").close().await;
    }
}
