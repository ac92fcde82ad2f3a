//! Tests of the whole: `system/` against real servers, `rules/` on the source tree itself.
