//! Memory that foreign code (Kotlin or Swift) lends for one call, by address: the only unsafe code of the facade.
//!
//! Null pointers, lengths that exceed memory and ranges that wrap around are refused. That the bytes exist, and stay in
//! place until the call returns, is up to the caller; the Kotlin and Swift layers ensure it by holding the buffer that
//! the address was taken from.

use crate::error::{Result, SkipstoneError};

/// The `length` bytes at `address`.
///
/// # Errors
/// `input.address`.
///
/// # Safety
/// The bytes must be readable, and not written, for as long as the slice is used.
pub(crate) unsafe fn borrow<'a>(address: u64, length: u64) -> Result<&'a [u8]> {
    let (address, length) = check(address, length)?;
    // SAFETY: not null, at most isize::MAX long and not past the end of memory, as just checked; readable and
    // unwritten, as the caller promises.
    Ok(unsafe { std::slice::from_raw_parts(address as *const u8, length) })
}

/// Writes `bytes` to the `length` bytes at `address`.
///
/// # Errors
/// `input.address`; `input.size` if `length` is not the length of `bytes`.
///
/// # Safety
/// The bytes must be writable, and not used by anything else, until the call returns.
pub(crate) unsafe fn write(address: u64, length: u64, bytes: &[u8]) -> Result<()> {
    let (address, length) = check(address, length)?;
    if length != bytes.len() {
        return Err(SkipstoneError::input(
            "input.size",
            format!("an output of {} bytes was given a buffer of {length}", bytes.len()),
        ));
    }
    // SAFETY: not null and in range, as just checked; writable, as the caller promises, and not a part of `bytes`,
    // which belong to the session.
    unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), address as *mut u8, length) };
    Ok(())
}

/// The address and length as `usize`, if such a range can exist.
///
/// # Errors
/// `input.address`.
pub(crate) fn check(address: u64, length: u64) -> Result<(usize, usize)> {
    let refused = |why: &str| SkipstoneError::input("input.address", format!("a buffer {why}"));
    if address == 0 {
        return Err(refused("has no address"));
    }
    let too_long = |_| refused("is longer than memory");
    let (address, length) = (usize::try_from(address).map_err(too_long)?, usize::try_from(length).map_err(too_long)?);
    let in_range = isize::try_from(length).is_ok() && address.checked_add(length).is_some();
    if in_range { Ok((address, length)) } else { Err(refused("is longer than memory")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn impossible_address_ranges_are_refused() {
        for (address, length) in [
            (0, 0),
            (0, 16),
            (16, u64::MAX),
            (u64::MAX, 1),
            (u64::MAX - 8, 16),
            (16, isize::MAX as u64 + 1),
            (isize::MAX as u64, isize::MAX as u64 + 2),
        ] {
            assert_eq!(check(address, length).unwrap_err().code(), "input.address", "{address} {length}");
        }
        assert_eq!(check(u64::MAX - 8, 8).ok(), Some((usize::MAX - 8, 8)));
    }

    #[test]
    fn bytes_are_written_only_if_all_of_them_fit() {
        let mut room = [0u8; 4];
        let address = room.as_mut_ptr() as u64;
        // SAFETY: `room` is writable and used by nothing else.
        unsafe {
            assert_eq!(write(address, 4, &[1, 2, 3]).unwrap_err().code(), "input.size");
            write(address, 4, &[1, 2, 3, 4]).unwrap();
        }
        assert_eq!(room, [1, 2, 3, 4]);
        // SAFETY: `room` is readable.
        assert_eq!(unsafe { borrow(address + 1, 2) }.unwrap(), [2, 3]);
    }
}
