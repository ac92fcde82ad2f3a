//! Lists, a page at a time: `limit`, and an opaque `cursor` that a page gives for the next one.

use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::error::{ApiError, Code};

/// How many things a page has, if the caller does not say.
const LIMIT: usize = 50;
/// The most things of a page.
const LIMIT_MAX: usize = 250;

/// Which page of a list.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// How many things to answer with at most.
    #[param(minimum = 1, maximum = 250, default = 50)]
    limit: Option<usize>,
    /// Where to go on: `next_cursor` of the page before.
    cursor: Option<String>,
}

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    /// What there is, in the order of the list.
    pub(crate) data: Vec<T>,
    /// Gives the next page; `null` if this is the last one.
    #[schema(required)]
    pub(crate) next_cursor: Option<String>,
}

impl Paging {
    /// Puts together what a longer query has of it.
    pub(crate) const fn new(limit: Option<usize>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// Returns how many things to answer with.
    pub(crate) fn limit(&self) -> Result<usize, ApiError> {
        match self.limit.unwrap_or(LIMIT) {
            limit @ 1..=LIMIT_MAX => Ok(limit),
            _ => Err(ApiError::value("limit", format_args!("it is 1 to {LIMIT_MAX}"))),
        }
    }

    /// Returns what the last thing of the page before was known by.
    pub(crate) fn after<T: FromStr>(&self) -> Result<Option<T>, ApiError> {
        let read = |cursor: &String| {
            let bytes = BASE64URL_NOPAD.decode(cursor.as_bytes()).ok()?;
            String::from_utf8(bytes).ok()?.parse().ok()
        };
        let invalid = || ApiError::from(Code::CursorInvalid);
        self.cursor.as_ref().map(|cursor| read(cursor).ok_or_else(invalid)).transpose()
    }
}

/// Returns the cursor that goes on after something.
pub(crate) fn cursor(last: &impl ToString) -> String {
    BASE64URL_NOPAD.encode(last.to_string().as_bytes())
}

impl<T> Page<T> {
    /// Makes a page of things, of which one more was looked for than there is room for.
    pub(crate) fn of<S, I: ToString>(
        mut found: Vec<S>,
        limit: usize,
        id: impl Fn(&S) -> I,
        show: impl Fn(&S) -> T,
    ) -> Self {
        let more = found.len() > limit;
        found.truncate(limit);
        let next_cursor = found.last().filter(|_| more).map(|last| cursor(&id(last)));
        Self { data: found.iter().map(show).collect(), next_cursor }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paging(limit: Option<usize>, cursor: Option<&str>) -> Paging {
        Paging { limit, cursor: cursor.map(String::from) }
    }

    #[test]
    fn pages_join_up() {
        let all: Vec<u32> = (0..7).collect();
        let (mut seen, mut next) = (Vec::new(), None);
        loop {
            let paging = Paging { limit: Some(3), cursor: next };
            let after = paging.after::<u32>().unwrap();
            let rest = all.iter().copied().filter(|one| after.is_none_or(|after| *one > after));
            let page = Page::of(rest.take(4).collect(), 3, |one| *one, |one| *one);
            seen.extend(page.data);
            next = page.next_cursor;
            if next.is_none() {
                break;
            }
        }
        assert_eq!(seen, all);
    }

    #[test]
    fn an_exact_page_is_the_last_one() {
        let page = Page::of(vec![1, 2, 3], 3, |one| *one, |one| *one);
        assert_eq!((page.data.len(), page.next_cursor), (3, None));
    }

    #[test]
    fn limits_and_cursors_are_checked() {
        for limit in [0, 251] {
            assert_eq!(paging(Some(limit), None).limit().unwrap_err().code(), Code::ValueInvalid);
        }
        assert_eq!(paging(None, None).limit().unwrap(), 50);
        for bad in ["", "!", "eHl6", "MTI="] {
            let read = paging(None, Some(bad)).after::<u32>();
            assert_eq!(read.unwrap_err().code(), Code::CursorInvalid, "{bad}");
        }
    }
}
