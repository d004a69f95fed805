//! Relay pages: newest first, `first` from 1 to 100.

use crate::error::ApiError;
use async_graphql::SimpleObject;

/// Most entries of a page.
const MAX_FIRST: i32 = 100;

/// Where a page stands in its list.
#[derive(Debug, Clone, SimpleObject)]
pub(crate) struct PageInfo {
    has_next_page: bool,
    has_previous_page: bool,
    start_cursor: Option<String>,
    end_cursor: Option<String>,
}

/// How many entries are wanted.
pub(crate) fn first(wanted: Option<i32>, default: i32) -> Result<u32, ApiError> {
    let wanted = wanted.unwrap_or(default);
    match u32::try_from(wanted) {
        Ok(first) if (1..=MAX_FIRST).contains(&wanted) => Ok(first),
        _ => Err(ApiError::invalid("first", wanted, "must be 1 to 100")),
    }
}

/// How often a list's content counts in a query's complexity. What is out of range is refused later.
pub(crate) fn weight(first: Option<i32>, default: i32) -> usize {
    usize::try_from(first.unwrap_or(default).clamp(1, MAX_FIRST)).unwrap_or(1)
}

/// One page of `first` entries, cut from up to `first + 1` of them with their cursors.
pub(crate) struct Page<T> {
    pub(crate) entries: Vec<(String, T)>,
    pub(crate) info: PageInfo,
}

impl<T> Page<T> {
    pub(crate) fn cut(mut entries: Vec<(String, T)>, first: u32, has_previous_page: bool) -> Self {
        let first = usize::try_from(first).unwrap_or(usize::MAX);
        let has_next_page = entries.len() > first;
        entries.truncate(first);
        let cursor = |entry: Option<&(String, T)>| entry.map(|(cursor, _)| cursor.clone());
        let (start_cursor, end_cursor) = (cursor(entries.first()), cursor(entries.last()));
        Self { entries, info: PageInfo { has_next_page, has_previous_page, start_cursor, end_cursor } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_is_bounded_and_the_error_names_it() {
        assert_eq!(first(None, 25), Ok(25));
        assert_eq!(first(Some(100), 25), Ok(100));
        for wrong in [0, -1, 101, i32::MAX] {
            let error = first(Some(wrong), 25).expect_err("out of range");
            assert_eq!(error.message, format!("first = {wrong}: must be 1 to 100"));
        }
    }

    #[test]
    fn a_page_knows_whether_more_follows() {
        let entries = |n: u32| (0..n).map(|n| (n.to_string(), n)).collect::<Vec<_>>();
        let page = Page::cut(entries(3), 2, false);
        assert_eq!((page.entries.len(), page.info.has_next_page), (2, true));
        assert_eq!((page.info.start_cursor.as_deref(), page.info.end_cursor.as_deref()), (Some("0"), Some("1")));
        let page = Page::cut(entries(0), 2, true);
        assert!(!page.info.has_next_page && page.info.has_previous_page && page.info.end_cursor.is_none());
    }
}
