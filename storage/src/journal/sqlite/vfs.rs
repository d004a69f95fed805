//! SQLite's way to the log's file, with [`Frames`] in between. Everything else, and every other file, is SQLite's own for unix: its
//! locks, its shared index, its database.
//!
//! The only unsafe code of the storage: SQLite asks for a table of C functions. It saves a fifth of what a batch costs
//! (`tests/bench/journal`). What it relies on is said beside it; `frames.rs` decides, in safe Rust.

#![expect(unsafe_code, reason = "SQLite's file interface is one of C; see above")]

use super::frames::Frames;
use rusqlite::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

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

/// SQLite's own file system, the one whose file is behind ours. SQLite never frees it.
static OWN: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(ptr::null_mut());

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
        OWN.store(own, Ordering::SeqCst);
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
/// Called by SQLite with room for `szOsFile` bytes at `file`, aligned for 8 bytes: a [`LogFile`] and, behind it, SQLite's own file.
unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let own = OWN.load(Ordering::SeqCst);
    // SAFETY: it was stored before this function was registered, and lives as long as the process.
    let Some(own_open) = (unsafe { own.as_ref() }).and_then(|own| own.xOpen) else { return ffi::SQLITE_CANTOPEN };
    if flags & ffi::SQLITE_OPEN_WAL == 0 {
        // SAFETY: the arguments are SQLite's, and there is room for more than its own file.
        return unsafe { own_open(own, name, file, flags, out_flags) };
    }
    // SAFETY: there is room for both files: the size of this `own`'s was added in `registered`.
    unsafe {
        let log = file.cast::<LogFile>();
        (*log).base.pMethods = ptr::null();
        let code = own_open(own, name, own_file(file), flags, out_flags);
        // Without methods SQLite takes it for closed; its own file holds nothing when it could not be opened.
        if code == ffi::SQLITE_OK {
            (*log).frames = Box::into_raw(Box::new(Frames::new()));
            (*log).base.pMethods = &raw const METHODS;
        }
        code
    }
}

// From here on `file` is always a log that `open` has opened and nobody has closed; SQLite uses it from one thread at a time, and
// what it gives to read or to fill is valid for the length it says and for as long as the call takes. That is what each "SAFETY"
// below stands on.

/// SQLite's own file behind ours. Aligned, since a [`LogFile`] is 16 bytes long.
///
/// # Safety
/// `file` has room for both.
unsafe fn own_file(file: *mut ffi::sqlite3_file) -> *mut ffi::sqlite3_file {
    // SAFETY: there is room for both.
    unsafe { file.cast::<LogFile>().add(1).cast() }
}

/// Calls a method of SQLite's own file: within `unsafe`, for an open log of ours, with arguments of SQLite's.
macro_rules! own {
    ($file:expr, $method:ident $(, $argument:expr)*) => {{
        let own = own_file($file);
        match (*(*own).pMethods).$method {
            Some(method) => method(own $(, $argument)*),
            None => ffi::SQLITE_IOERR,
        }
    }};
}

/// What is held of the file's frames.
///
/// # Safety
/// `file` is an open log of ours, and what this returned before is not used any more.
unsafe fn frames<'f>(file: *mut ffi::sqlite3_file) -> &'f mut Frames {
    // SAFETY: set by `open`, freed by `close` only.
    unsafe { &mut *(*file.cast::<LogFile>()).frames }
}

/// Writes to SQLite's own file.
///
/// # Safety
/// `file` is an open log of ours.
unsafe fn through(file: *mut ffi::sqlite3_file, at: i64, bytes: &[u8]) -> Result<(), c_int> {
    #[cfg(test)]
    tests::strike()?;
    let Ok(length) = c_int::try_from(bytes.len()) else { return Err(ffi::SQLITE_IOERR_WRITE) };
    // SAFETY: it is open, and so many bytes are there.
    match unsafe { own!(file, xWrite, bytes.as_ptr().cast(), length, at) } {
        ffi::SQLITE_OK => Ok(()),
        code => Err(code),
    }
}

fn code(done: Result<(), c_int>) -> c_int {
    done.err().unwrap_or(ffi::SQLITE_OK)
}

/// Before the log is read, cut, synced or measured.
///
/// # Safety
/// `file` is an open log of ours.
unsafe fn rest(file: *mut ffi::sqlite3_file) -> Result<(), c_int> {
    // SAFETY: it is open, and nothing else uses its frames.
    unsafe { frames(file) }.rest()
}

unsafe extern "C" fn write(file: *mut ffi::sqlite3_file, from: *const c_void, length: c_int, at: i64) -> c_int {
    let Ok(length) = usize::try_from(length) else { return ffi::SQLITE_IOERR_WRITE };
    // SAFETY: see above; its frames are not part of SQLite's own file, to which it writes meanwhile.
    unsafe {
        let bytes = std::slice::from_raw_parts(from.cast::<u8>(), length);
        code(frames(file).write(at, bytes, |at, bytes| through(file, at, bytes)))
    }
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, length: c_int, at: i64) -> c_int {
    // SAFETY: see above.
    unsafe { rest(file).map_or_else(|code| code, |()| own!(file, xRead, to, length, at)) }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    // SAFETY: see above.
    unsafe { rest(file).map_or_else(|code| code, |()| own!(file, xTruncate, size)) }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: see above.
    unsafe { rest(file).map_or_else(|code| code, |()| own!(file, xSync, flags)) }
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    // SAFETY: see above.
    unsafe { rest(file).map_or_else(|code| code, |()| own!(file, xFileSize, size)) }
}

/// What is still held belongs to no commit.
unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: see above; the frames are from `open`, and SQLite does not use the file any more.
    unsafe {
        let code = own!(file, xClose);
        drop(Box::from_raw((*file.cast::<LogFile>()).frames));
        code
    }
}

unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see above.
    unsafe { own!(file, xLock, level) }
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    // SAFETY: see above.
    unsafe { own!(file, xUnlock, level) }
}

unsafe extern "C" fn check_reserved_lock(file: *mut ffi::sqlite3_file, is_reserved: *mut c_int) -> c_int {
    // SAFETY: see above.
    unsafe { own!(file, xCheckReservedLock, is_reserved) }
}

unsafe extern "C" fn file_control(file: *mut ffi::sqlite3_file, what: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: see above.
    unsafe { own!(file, xFileControl, what, argument) }
}

unsafe extern "C" fn sector_size(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: see above.
    unsafe { own!(file, xSectorSize) }
}

unsafe extern "C" fn device_characteristics(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: see above.
    unsafe { own!(file, xDeviceCharacteristics) }
}

#[cfg(test)]
mod tests {
    use super::super::open_at;
    use rusqlite::{Connection, ErrorCode, ffi, params};
    use schema::entropy::Entropy;
    use std::cell::Cell;
    use std::ffi::c_int;
    use std::path::Path;

    thread_local! {
        /// Writes to the log, and which of them fails.
        static WRITES: Cell<(u32, Option<u32>)> = const { Cell::new((0, None)) };
    }

    pub(super) fn strike() -> Result<(), c_int> {
        let (count, fails) = WRITES.get();
        WRITES.set((count + 1, fails));
        if fails == Some(count) { Err(ffi::SQLITE_FULL) } else { Ok(()) }
    }

    fn ours(path: &Path) -> Connection {
        let connection = open_at(path).expect("opened");
        // As few pages as there can be: whatever SQLite would write before its time, it would write now.
        connection.execute_batch("pragma cache_size = 10").expect("set");
        connection
    }

    fn plain(path: &Path) -> Connection {
        let connection = Connection::open(path).expect("opened");
        let pragmas = "pragma journal_mode = wal; pragma synchronous = normal; pragma wal_autocheckpoint = 0";
        connection.execute_batch(pragmas).expect("set");
        connection
    }

    /// Two databases that are to be the same: ours and one that SQLite alone writes.
    struct Both {
        folder: tempfile::TempDir,
        writer: Connection,
        other: Connection,
        reader: Connection,
        expected: Connection,
    }

    impl Both {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a folder");
            let [path, same] = ["ours.db", "plain.db"].map(|name| folder.path().join(name));
            for path in [&path, &same] {
                plain(path).execute_batch("create table t (id integer primary key, data blob) strict").expect("made");
            }
            let (writer, other, reader) = (ours(&path), plain(&path), plain(&path));
            Self { folder, writer, other, reader, expected: plain(&same) }
        }

        fn change(&self, by: &Connection, seed: u64, changes: u64, ends: &str) {
            for connection in [by, &self.expected] {
                change(connection, seed, changes);
                connection.execute_batch(ends).expect("ended");
            }
            self.are_same();
        }

        /// For whoever reads, and for another program after a crash.
        fn are_same(&self) {
            let expected = rows(&self.expected);
            assert_eq!(rows(&self.reader), expected);
            for end in ["", "-wal"] {
                let at = |name: &str| self.folder.path().join(format!("{name}{end}"));
                std::fs::copy(at("ours.db"), at("crashed.db")).expect("copied");
            }
            let crashed = plain(&self.folder.path().join("crashed.db"));
            assert_eq!(rows(&crashed), expected);
            let check =
                crashed.query_row("pragma integrity_check", [], |row| row.get::<_, String>(0)).expect("checked");
            assert_eq!(check, "ok");
        }

        /// Frames in the log.
        fn frames(&self) -> u64 {
            std::fs::metadata(self.folder.path().join("ours.db-wal")).expect("a log").len() / 4_120
        }
    }

    fn rows(connection: &Connection) -> Vec<(i64, Vec<u8>)> {
        let mut statement = connection.prepare("select id, data from t order by id").expect("prepared");
        let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).expect("read");
        rows.collect::<Result<_, _>>().expect("read")
    }

    /// Begins a transaction of so many changes at random, with a savepoint that is given up; the same numbers give the same changes.
    fn change(connection: &Connection, seed: u64, changes: u64) {
        let mut entropy = Entropy::from_number(seed);
        connection.execute_batch("begin immediate").expect("begun");
        for _ in 0..changes {
            let id = i64::try_from(entropy.below(500)).expect("small");
            let byte = u8::try_from(entropy.below(256)).expect("a byte");
            let data = vec![byte; usize::try_from(entropy.below(3_000)).expect("small")];
            let text = "insert into t (id, data) values (?1, ?2) on conflict (id) do update set data = ?2";
            connection.execute(text, params![id, data]).expect("changed");
        }
        let given_up = "savepoint s; delete from t where id < 250; rollback to s; release s";
        connection.execute_batch(given_up).expect("given up");
    }

    #[test]
    fn a_database_is_written_as_sqlite_itself_would_in_fewer_writes() {
        let both = Both::new();
        for seed in 0..70 {
            let ends = if seed % 4 == 1 { "rollback" } else { "commit" };
            let by = if seed % 5 == 2 { &both.other } else { &both.writer };
            let before = both.frames();
            WRITES.set((0, None));
            both.change(by, seed, 1 + seed * 13 % 300, ends);
            let (added, writes) = (both.frames().saturating_sub(before), u64::from(WRITES.get().0));
            // Until the log begins anew it grows by what is written.
            assert!(seed >= 20 || writes <= added / 31 + 4, "{writes} writes of {added} frames");
            if seed % 20 == 19 {
                let restart = "pragma wal_checkpoint(restart)";
                let busy = both.writer.query_row(restart, [], |row| row.get::<_, bool>(0)).expect("carried over");
                assert!(!busy);
            }
        }
        let Both { writer, reader, expected, .. } = both;
        drop(writer);
        assert_eq!(rows(&reader), rows(&expected));
    }

    #[test]
    fn a_commit_that_fails_in_the_middle_leaves_nothing_behind_whoever_writes_next() {
        for others in [0, 1, 200] {
            let both = Both::new();
            both.change(&both.writer, 1, 300, "commit");
            change(&both.writer, 2, 400);
            WRITES.set((0, Some(2)));
            let full = both.writer.execute_batch("commit").expect_err("the third write fails");
            assert_eq!(full.sqlite_error_code(), Some(ErrorCode::DiskFull));
            assert_eq!(WRITES.replace((0, None)).0, 3);
            if !both.writer.is_autocommit() {
                both.writer.execute_batch("rollback").expect("given up");
            }
            both.are_same();
            if others > 0 {
                both.change(&both.other, 3, others, "commit");
            }
            both.change(&both.writer, 4, 100, "commit");
            both.change(&both.writer, 5, 300, "commit");
        }
    }
}
