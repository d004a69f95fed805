//! Limits on received messages, so that nobody makes us keep or read more than calls need. Sizes are bytes.

/// Largest datagram accepted over UDP.
pub const MAX_DATAGRAM: usize = 16 * 1024;
/// Largest message, and largest receive buffer, on a stream transport.
pub const MAX_STREAM_MESSAGE: usize = 64 * 1024;
/// Longest request line or status line.
pub const MAX_START_LINE: usize = 4 * 1024;
/// Longest header line, folded lines counted together.
pub const MAX_HEADER_LINE: usize = 8 * 1024;
/// Most header fields in one message.
pub const MAX_HEADERS: usize = 128;
/// Most Via values, counted over all fields and commas. RFC 4475 §3.1.1.7 has 34 in a valid request (D31).
pub const MAX_VIAS: usize = 64;
/// Most Route, and most Record-Route, values.
pub const MAX_ROUTES: usize = 16;
/// Most Contact values of a request.
pub const MAX_CONTACTS: usize = 8;
/// Longest URI.
pub const MAX_URI: usize = 1024;
/// Most parameters of one URI or header value.
pub const MAX_PARAMS: usize = 32;
/// Most entries read from a token list (Require, Supported, Allow).
pub const MAX_TOKENS: usize = 64;
