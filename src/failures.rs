//! `ringfence failures`: what failed again and again in the running server, in words.

use actors::Actors;

/// One line of figures, then one for each message that is set aside.
pub(crate) fn lines(actors: &Actors) -> Vec<String> {
    let counts = actors.counts();
    let figures = format!(
        "{} panics since the start; {} resting, {} supervisors beyond their intensity, {} calls over but not settled",
        counts.panics, counts.resting, counts.beyond_intensity, counts.unsettled_calls
    );
    let aside = actors.set_aside().into_iter().map(|aside| {
        let since = aside.since.to_rfc3339();
        format!("set aside since {since}: {}: {}, refused {} times", aside.subject, aside.work, aside.refused)
    });
    std::iter::once(figures).chain(aside).collect()
}
