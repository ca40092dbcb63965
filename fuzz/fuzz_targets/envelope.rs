//! A text message in either protocol version, straight from a client.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringcast::protocol::phoenix::{Vsn, decode_text};

fuzz_target!(|data: &[u8]| {
    let _ = decode_text(Vsn::V1, data);
    let _ = decode_text(Vsn::V2, data);
});
