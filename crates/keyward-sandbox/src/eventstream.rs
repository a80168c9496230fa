//! Frames of `application/vnd.amazon.eventstream` ("Event stream encoding" of the Amazon documentation of Smithy).
//!
//! A frame is its length and the length of its headers, a CRC-32 of both, the headers, the payload, and a CRC-32 of all that.
//! Numbers are unsigned, 32 bits, most significant byte first. Called by [`crate::bedrock`].

use bytes::Bytes;

/// Type of a header whose value is text.
const TEXT: u8 = 7;

/// An event with a JSON payload.
pub(crate) fn event(name: &str, payload: &str) -> Bytes {
    frame(
        &[(":event-type", name), (":content-type", "application/json"), (":message-type", "event")],
        payload.as_bytes(),
    )
}

fn frame(headers: &[(&str, &str)], payload: &[u8]) -> Bytes {
    let mut block = Vec::new();
    for (name, value) in headers {
        // Names and values here are short; a length that does not fit is cut, and the frame is wrong.
        block.push(name.len() as u8);
        block.extend(name.as_bytes());
        block.push(TEXT);
        block.extend((value.len() as u16).to_be_bytes());
        block.extend(value.as_bytes());
    }
    let length = 12 + block.len() + payload.len() + 4;
    let mut frame = Vec::with_capacity(length);
    frame.extend((length as u32).to_be_bytes());
    frame.extend((block.len() as u32).to_be_bytes());
    frame.extend(crc32(&frame).to_be_bytes());
    frame.extend(block);
    frame.extend(payload);
    frame.extend(crc32(&frame).to_be_bytes());
    frame.into()
}

/// CRC-32 of ISO/IEC 3309, as zip has it.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc: u32, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_those_of_the_published_examples() {
        // The check value of the algorithm, and the empty message and the one with a header of the vendor's test suite.
        assert_eq!(crc32(b"123456789"), 0xcbf4_3926);
        assert_eq!(hex::encode(frame(&[], b"")), "000000100000000005c248eb7d98c8ff");
        let expected = concat!(
            "0000003d0000002007fd8396",
            "0c636f6e74656e742d747970650700106170706c69636174696f6e2f6a736f6e",
            "7b27666f6f273a27626172277d",
            "8d9c08b1",
        );
        assert_eq!(hex::encode(frame(&[("content-type", "application/json")], b"{'foo':'bar'}")), expected);
    }
}
