//! Does everything that fuzzing is begun with, or has found, still hold? Runs the fuzz targets over their corpora.

#[path = "../fuzz/src/targets.rs"]
mod targets;

const LARGEST_FILE: u64 = 4 * 1024;
const LARGEST_TOGETHER: u64 = 300 * 1024;

#[test]
fn every_input_of_every_corpus_is_taken_by_its_target() {
    let mut together = 0;
    for (name, target) in targets::ALL {
        let folder = format!("{}/fuzz/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
        let mut inputs = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder}: {error}")) {
            let path = entry.expect("an entry").path();
            let input = std::fs::read(&path).expect("a file");
            assert!((input.len() as u64) < LARGEST_FILE, "{} is larger than 4 KiB", path.display());
            together += input.len() as u64;
            inputs += 1;
            let result = std::panic::catch_unwind(|| target(&input));
            assert!(result.is_ok(), "{} fails", path.display());
        }
        assert!(inputs > 0, "{name} has no corpus");
    }
    assert!(together < LARGEST_TOGETHER, "the corpora are {together} bytes together");
}
