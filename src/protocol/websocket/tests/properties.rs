//! Any valid stream, however fragmented and cut, decodes to its messages; any stream at
//! all decodes the same however it is cut.

use proptest::collection::vec;
use proptest::prelude::*;

use super::super::*;
use super::{LIMITS, Seen, decode_in_pieces, decode_whole, frame};

/// A message and the cuts that fragment it, or a control frame.
#[derive(Debug, Clone)]
struct Planned {
    seen: Seen,
    cuts: Vec<usize>,
    between: Vec<Seen>,
}

fn control() -> impl Strategy<Value = Seen> {
    (any::<bool>(), vec(any::<u8>(), 0..=125)).prop_map(|(ping, data)| match ping {
        true => Seen::Ping(data),
        false => Seen::Pong(data),
    })
}

fn planned() -> impl Strategy<Value = Planned> {
    let data = prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..700)];
    let message = (any::<bool>(), data).prop_map(|(is_text, data)| match is_text {
        true => Seen::Text(data),
        false => Seen::Binary(data),
    });
    (message, vec(0_usize..700, 0..4), vec(control(), 0..3)).prop_map(|(seen, cuts, between)| Planned { seen, cuts, between })
}

impl Planned {
    /// Appends the frames of this plan to `stream` and what a decoder must report to `seen`.
    fn write(&self, stream: &mut Vec<u8>, seen: &mut Vec<Seen>) {
        let (opcode, data) = match &self.seen {
            Seen::Text(data) => (1, data),
            Seen::Binary(data) => (2, data),
            other => unreachable!("{other:?} is no message"),
        };
        let mut cuts: Vec<usize> = self.cuts.iter().map(|cut| cut % (data.len() + 1)).collect();
        cuts.sort_unstable();
        let mut start = 0;
        for (index, cut) in cuts.iter().enumerate() {
            stream.extend(frame(if index == 0 { opcode } else { 0 }, &data[start..*cut]));
            start = *cut;
            if let Some(control) = self.between.get(index) {
                let (first, data) = match control {
                    Seen::Ping(data) => (0x89, data),
                    Seen::Pong(data) => (0x8a, data),
                    other => unreachable!("{other:?} is no control frame"),
                };
                stream.extend(frame(first, data));
                seen.push(control.clone());
            }
        }
        let last_opcode = if cuts.is_empty() { opcode } else { 0 };
        stream.extend(frame(0x80 | last_opcode, &data[start..]));
        seen.push(self.seen.clone());
    }
}

/// Streams that pass the first checks often enough to reach the later ones.
fn plausible_garbage() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![Just(0x81), Just(0x02), Just(0x80), Just(0x00), Just(0x89), any::<u8>()];
    let piece = (first, vec(any::<u8>(), 0..20), any::<bool>()).prop_map(|(first, data, whole)| {
        let mut bytes = frame(first, &data);
        bytes.truncate(if whole { bytes.len() } else { bytes.len() / 2 });
        bytes
    });
    prop_oneof![vec(any::<u8>(), 0..200), vec(piece, 0..8).prop_map(|pieces| pieces.concat())]
}

proptest! {
    #[test]
    fn valid_streams_decode_to_their_messages(
        plan in vec(planned(), 1..6),
        pieces in vec(1_usize..300, 0..30),
    ) {
        let (mut stream, mut expected) = (Vec::new(), Vec::new());
        for planned in &plan {
            planned.write(&mut stream, &mut expected);
        }
        prop_assert_eq!(decode_whole(&stream), (expected.clone(), Ok(())));
        prop_assert_eq!(decode_in_pieces(&stream, &pieces, &LIMITS), (expected, Ok(())));
    }

    #[test]
    fn cuts_never_change_the_outcome(
        stream in plausible_garbage(),
        pieces in vec(1_usize..20, 1..20),
        message_bytes_max in 0_usize..60,
    ) {
        let limits = DecodeLimits { message_bytes_max };
        let whole = decode_in_pieces(&stream, &[], &limits);
        prop_assert_eq!(&decode_in_pieces(&stream, &[1], &limits), &whole);
        prop_assert_eq!(&decode_in_pieces(&stream, &pieces, &limits), &whole);
    }
}
