//! A binary message of protocol version 2, straight from a client.

#![no_main]

use libfuzzer_sys::fuzz_target;
use ringcast::protocol::phoenix::decode_binary;

fuzz_target!(|data: &[u8]| {
    let _ = decode_binary(data);
});
