//! placeholder of the crate's documentation

pub mod deck_file;
pub mod dialplan;
pub mod rating;
pub mod routing;
