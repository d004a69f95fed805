//! The table and its chart.

/// One run.
#[derive(Debug, Clone)]
pub struct Measured {
    /// A second.
    pub rate: f64,
    pub p50_us: u32,
    pub p99_us: u32,
    pub note: String,
}

pub struct Row {
    pub name: &'static str,
    pub measured: Vec<Measured>,
}

impl Row {
    /// Least, middle and greatest.
    fn rates(&self) -> (f64, f64, f64) {
        let mut rates: Vec<_> = self.measured.iter().map(|m| m.rate).collect();
        rates.sort_by(f64::total_cmp);
        (rates[0], rates[rates.len() / 2], rates[rates.len() - 1])
    }

    fn middle(&self, of: impl Fn(&Measured) -> u32) -> f64 {
        let mut all: Vec<_> = self.measured.iter().map(of).collect();
        all.sort_unstable();
        f64::from(all[all.len() / 2]) / 1_000.0
    }
}

pub fn print(rows: &[Row]) {
    let rate = |name: &str| rows.iter().find(|row| row.name.starts_with(name)).map(|row| row.rates().1);
    let (program, pgbench) = (rate("C and SQLite, 256"), rate("pgbench"));
    println!(
        "\npairs of reserve and settle a second (whole calls: three entries); median of the repeats, with the least and the greatest"
    );
    println!("{:<44}{:>9}{:>9}{:>9}{:>10}{:>9}{:>9}  ", "", "median", "min", "max", "ratio", "p50 ms", "p99 ms");
    for row in rows {
        let (least, middle, greatest) = row.rates();
        let base = if row.name.starts_with("SQLite") {
            program
        } else if row.name.starts_with("PostgreSQL") {
            pgbench
        } else {
            None
        };
        let ratio = base.map_or(String::new(), |base| format!("{:.2}", middle / base));
        let note = row.measured.last().map_or("", |m| &m.note);
        println!(
            "{:<44}{middle:>9.0}{least:>9.0}{greatest:>9.0}{ratio:>10}{:>9.2}{:>9.2}  {note}",
            row.name,
            row.middle(|m| m.p50_us),
            row.middle(|m| m.p99_us),
        );
    }
    println!(
        "ratio: SQLite to the C program's spread row, PostgreSQL to pgbench; p50, p99: of an answer, of a commit, of a pgbench pair\n"
    );
    let shown = || rows.iter().filter(|row| !row.name.starts_with("disk"));
    let most = shown().map(|row| row.rates().1).fold(1.0, f64::max);
    for row in shown() {
        let (_, middle, _) = row.rates();
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a bar of at most 50")]
        let bar = "█".repeat((middle / most * 50.0).round() as usize);
        println!("{:<44}{bar} {middle:.0}", row.name);
    }
}
