//! Whole exchanges through the core.
