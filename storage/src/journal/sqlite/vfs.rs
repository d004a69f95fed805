//! SQLite's way to the log's file, with [`Frames`] in between. Everything else, and every other file, is SQLite's own for unix: its
//! locks, its shared index, its database.
//!
//! The only unsafe code of the storage: SQLite asks for a table of C functions. It saves a fifth of what a batch costs
//! (`tests/bench/journal`). What it relies on is said at each function; `frames.rs` decides, in safe Rust.

#![expect(unsafe_code, reason = "SQLite's file interface is one of C; see above")]

use super::frames::Frames;
use rusqlite::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

/// Its name among SQLite's file systems.
const NAME: &CStr = c"ringfence-log";

/// The log's file as SQLite sees it: what SQLite asks of any file, then ours; behind it lies the file of SQLite's own.
#[repr(C)]
struct LogFile {
    base: ffi::sqlite3_file,
    /// Ours alone, from a `Box`, while the file is open.
    frames: *mut Frames,
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    // What came with later versions concerns the database's file alone.
    iVersion: 1,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// Makes it known to SQLite, once. Returns the name to open a connection with.
///
/// # Errors
/// SQLite's, when it has no file system of its own or no memory.
pub(super) fn registered() -> Result<&'static CStr, rusqlite::Error> {
    static REGISTERED: OnceLock<c_int> = OnceLock::new();
    let code = *REGISTERED.get_or_init(|| {
        // SAFETY: it only looks a name up; what it returns lives as long as the process.
        let own = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
        // SAFETY: null, or a valid table of functions, which is copied.
        let Some(mut vfs) = (unsafe { own.as_ref() }).copied() else { return ffi::SQLITE_ERROR };
        let Ok(more) = c_int::try_from(size_of::<LogFile>()) else { return ffi::SQLITE_ERROR };
        vfs.pNext = ptr::null_mut();
        vfs.zName = NAME.as_ptr();
        vfs.szOsFile += more;
        vfs.xOpen = Some(open);
        // SAFETY: SQLite keeps the pointer, so it is given away for good.
        unsafe { ffi::sqlite3_vfs_register(Box::leak(Box::new(vfs)), 0) }
    });
    if code == ffi::SQLITE_OK { Ok(NAME) } else { Err(rusqlite::Error::SqliteFailure(ffi::Error::new(code), None)) }
}

/// Opens any file; one that is not the log is SQLite's own from then on.
///
/// Called by SQLite with room for `szOsFile` bytes at `file`, aligned for pointers: a [`LogFile`] and, behind it, SQLite's own file.
unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: as in `registered`, where it was found.
    let own = unsafe { ffi::sqlite3_vfs_find(ptr::null()) };
    // SAFETY: see there.
    let Some(own_open) = (unsafe { own.as_ref() }).and_then(|own| own.xOpen) else { return ffi::SQLITE_CANTOPEN };
    if flags & ffi::SQLITE_OPEN_WAL == 0 {
        // SAFETY: the arguments are SQLite's, and there is room for more than its own file.
        return unsafe { own_open(own, name, file, flags, out_flags) };
    }
    // SAFETY: there is room for both files.
    unsafe {
        let log = file.cast::<LogFile>();
        (*log).base.pMethods = ptr::null();
        let code = own_open(own, name, own_file(file), flags, out_flags);
        // Without methods SQLite takes it for closed, and does not close it.
        if code == ffi::SQLITE_OK {
            (*log).frames = Box::into_raw(Box::new(Frames::new()));
            (*log).base.pMethods = &raw const METHODS;
        }
        code
    }
}

/// SQLite's own file behind ours. Aligned, since a [`LogFile`] is two pointers long.
///
/// # Safety
/// `file` is one that [`open`] was given for the log.
unsafe fn own_file(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: there is room for both.
    unsafe { file.cast::<LogFile>().add(1).cast() }
}

/// Calls a method of SQLite's own file.
///
/// # Safety
/// `$file` is an open log of ours, and SQLite gave the arguments.
macro_rules! own {
    ($file:expr, $method:ident $(, $argument:expr)*) => {
        // SAFETY: an open file of SQLite's has its methods; see above.
        unsafe {
            let own = own_file($file);
            match (*(*own).pMethods).$method {
                Some(method) => method(own $(, $argument)*),
                None => ffi::SQLITE_IOERR,
            }
        }
    };
}

/// What is held of the file's frames. SQLite uses a file of a connection from one thread at a time.
///
/// # Safety
/// `file` is an open log of ours, and what this returned before is not used any more.
unsafe fn frames<'f>(file: *mut ffi::sqlite3_file) -> &'f mut Frames {
    // SAFETY: set by `open`, freed by `close` only.
    unsafe { &mut *(*file.cast::<LogFile>()).frames }
}

/// Writes to SQLite's own file.
fn through(file: *mut ffi::sqlite3_file, at: i64, bytes: &[u8]) -> Result<(), c_int> {
    let Ok(length) = c_int::try_from(bytes.len()) else { return Err(ffi::SQLITE_IOERR_WRITE) };
    match own!(file, xWrite, bytes.as_ptr().cast(), length, at) {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    }
}

fn code(done: Result<(), c_int>) -> c_int {
    done.err().unwrap_or(ffi::SQLITE_OK)
}

/// Before anything else is done with the file.
fn rest(file: *mut ffi::sqlite3_file) -> Result<(), c_int> {
    // SAFETY: SQLite calls the methods below with a file that it has opened.
    unsafe { frames(file) }.rest()
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, length: c_int, at: i64) -> c_int {
    let Ok(length) = usize::try_from(length) else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: SQLite gives so many bytes to read, which nobody writes meanwhile.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), length) };
    // SAFETY: as in `rest`.
    code(unsafe { frames(file) }.write(at, bytes, |at, bytes| through(file, at, bytes)))
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, length: c_int, at: i64) -> c_int {
    rest(file).map_or_else(|code| code, |()| own!(file, xRead, to, length, at))
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    rest(file).map_or_else(|code| code, |()| own!(file, xTruncate, size))
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    rest(file).map_or_else(|code| code, |()| own!(file, xSync, flags))
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    rest(file).map_or_else(|code| code, |()| own!(file, xFileSize, size))
}

/// What is still held belongs to no commit.
unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let code = own!(file, xClose);
    // SAFETY: from `open`; SQLite does not use the file any more.
    drop(unsafe { Box::from_raw((*file.cast::<LogFile>()).frames) });
    code
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    own!(file, xLock, level)
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    own!(file, xUnlock, level)
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, is_reserved: *mut c_int) -> c_int {
    own!(file, xCheckReservedLock, is_reserved)
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    own!(file, xFileControl, what, argument)
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    own!(file, xSectorSize)
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    own!(file, xDeviceCharacteristics)
}

#[cfg(test)]
mod tests {
    use super::registered;
    use rusqlite::{Connection, OpenFlags, params};
    use schema::entropy::Entropy;
    use std::path::Path;

    const PRAGMAS: &str = "pragma journal_mode = wal; pragma synchronous = normal; pragma wal_autocheckpoint = 0;";

    fn ours(path: &Path) -> Connection {
        let name = registered().expect("registered");
        let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), name).expect("opened");
        // As few pages as there can be: whatever SQLite would write before its time, it would write now.
        connection.execute_batch(PRAGMAS).expect("set");
        connection.execute_batch("pragma cache_spill = off; pragma cache_size = 10;").expect("set");
        connection
    }

    fn plain(path: &Path) -> Connection {
        let connection = Connection::open(path).expect("opened");
        connection.execute_batch(PRAGMAS).expect("set");
        connection
    }

    fn rows(connection: &Connection) -> Vec<(i64, Vec<u8>)> {
        let mut statement = connection.prepare("select id, data from t order by id").expect("prepared");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
        rows.collect::<Result<_, _>>().expect("read")
    }

    /// A transaction of so many changes at random, with a savepoint that is given up; the same numbers give the same changes.
    fn change(connection: &Connection, seed: u64, changes: u64, ends: &str) {
        let mut entropy = Entropy::from_number(seed);
        connection.execute_batch("begin immediate").expect("begun");
        for _ in 0..changes {
            let id = i64::try_from(entropy.below(500)).expect("small");
            let byte = u8::try_from(entropy.below(256)).expect("a byte");
            let data = vec![byte; usize::try_from(entropy.below(3_000)).expect("small")];
            let text = "insert into t (id, data) values (?1, ?2) on conflict (id) do update set data = ?2";
            connection.execute(text, params![id, data]).expect("changed");
        }
        connection
            .execute_batch("savepoint s; delete from t where id < 250; rollback to s; release s")
            .expect("given up");
        connection.execute_batch(ends).expect("ended");
    }

    #[test]
    fn a_database_is_written_as_sqlite_itself_would() {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, same) = (folder.path().join("ours.db"), folder.path().join("plain.db"));
        for path in [&path, &same] {
            plain(path).execute_batch("create table t (id integer primary key, data blob) strict").expect("made");
        }
        let (writer, other, reader) = (ours(&path), plain(&path), plain(&path));
        let expected = plain(&same);
        for seed in 0..60 {
            let (changes, ends) = (1 + seed * 13 % 300, if seed % 4 == 1 { "rollback" } else { "commit" });
            // Another connection writes where what was given up would have stood.
            let by = if seed % 5 == 2 { &other } else { &writer };
            change(by, seed, changes, ends);
            change(&expected, seed, changes, ends);
            assert_eq!(rows(&reader), rows(&expected), "a reader sees it at once, {seed}");
            if seed % 20 == 19 {
                let restart = "pragma wal_checkpoint(restart)";
                let busy = writer.query_row(restart, [], |row| row.get::<_, bool>(0)).expect("carried over");
                assert!(!busy);
            }
        }
        let mut log = path.clone().into_os_string();
        log.push("-wal");
        assert!(std::fs::metadata(&log).expect("a log").len() > 1_000_000, "more than a few commits");
        // What another program would find after a crash.
        let crashed = folder.path().join("crashed.db");
        std::fs::copy(&path, &crashed).expect("copied");
        std::fs::copy(&log, folder.path().join("crashed.db-wal")).expect("copied");
        let crashed = plain(&crashed);
        assert_eq!(rows(&crashed), rows(&expected));
        let check = crashed.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0)).expect("checked");
        assert_eq!(check, "ok");
        drop(writer);
        assert_eq!(rows(&reader), rows(&expected));
    }
}
