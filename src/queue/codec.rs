//! How values are encoded: by postcard. Only a `Vec<u8>` is copied as a whole, to the same bytes,
//! as serde hands it to postcard byte by byte.

use postcard::experimental::serialized_size;
use serde::de::DeserializeOwned;
use serde::{Serialize, Serializer};

use crate::object::cast;

/// Bytes of the longest length, as postcard writes it: seven bits in each.
const LONGEST_LEN: usize = (usize::BITS as usize).div_ceil(7);

const BAD: postcard::Error = postcard::Error::DeserializeBadEncoding;

/// Bytes that are encoded as a whole.
struct Whole<'a>(&'a [u8]);

impl Serialize for Whole<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

/// Number of bytes that the encoded value takes.
pub(super) fn len<T: Serialize>(value: &T) -> postcard::Result<usize> {
    match cast::as_bytes(value) {
        Some(bytes) => serialized_size(&Whole(bytes)),
        None => serialized_size(value),
    }
}

/// Encodes the value at the beginning of `buffer`; gives what it takes of it.
pub(super) fn encode<'b, T: Serialize>(
    value: &T,
    buffer: &'b mut [u8],
) -> postcard::Result<&'b mut [u8]> {
    match cast::as_bytes(value) {
        Some(bytes) => postcard::to_slice(&Whole(bytes), buffer),
        None => postcard::to_slice(value, buffer),
    }
}

/// The value in `bytes`, which must be all of them.
pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> postcard::Result<T> {
    decode_whole(bytes).unwrap_or_else(|| match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        _ => Err(BAD),
    })
}

/// As [`decode`], if `T` is `Vec<u8>`. `bytes` may be those of a message, which a peer may write
/// over: the length is read from a copy, and all bytes are valid.
pub(super) fn decode_whole<T>(bytes: &[u8]) -> Option<postcard::Result<T>> {
    cast::from_bytes(|| {
        let mut head = [0; LONGEST_LEN];
        let head = &mut head[..bytes.len().min(LONGEST_LEN)];
        head.copy_from_slice(&bytes[..head.len()]);
        let (len, rest) = postcard::take_from_bytes::<usize>(head)?;
        let body = &bytes[head.len() - rest.len()..];
        if body.len() == len { Ok(body.to_vec()) } else { Err(BAD) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As earlier versions wrote them, and as they read them.
    #[test]
    fn bytes_are_encoded_as_postcard_does() {
        for len in [0, 1, 127, 128, 16_383, 16_384, 1 << 20] {
            let bytes: Vec<u8> = (0..len).map(|index| (index * 7 % 251) as u8).collect();
            let by_postcard = postcard::to_allocvec(&bytes).expect("memory");
            assert_eq!(super::len(&bytes), Ok(by_postcard.len()));
            let mut buffer = vec![0xff; by_postcard.len() + 3];
            assert_eq!(encode(&bytes, &mut buffer), Ok(&mut by_postcard.clone()[..]));
            assert_eq!(decode::<Vec<u8>>(&by_postcard), Ok(bytes));
        }
    }

    #[test]
    fn bytes_that_are_no_value_are_an_error() {
        for bytes in [&[][..], &[2, 1], &[1, 1, 1], &[0, 0], &[0xff; 20]] {
            assert!(decode::<Vec<u8>>(bytes).is_err(), "{bytes:?}");
            assert!(decode::<Vec<i8>>(bytes).is_err(), "{bytes:?}");
        }
        assert!(encode(&vec![1_u8; 10], &mut [0; 10]).is_err(), "no place for the length");
    }
}
