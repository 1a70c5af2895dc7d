//! The weights of some filters, from half precision to f32.

use half::f16;

use crate::lanes::Lanes;

/// Widens weights into as many elements.
///
/// # Safety
/// The CPU has the instruction set.
///
/// # Panics
/// If the lengths differ.
pub(super) type Widen = unsafe fn(&[f16], &mut [f32]);

/// # Safety
/// As for [`Widen`], and the caller enables the instruction set of `L`.
#[inline(always)]
unsafe fn widen<L: Lanes>(from: &[f16], to: &mut [f32]) {
    assert_eq!(from.len(), to.len(), "as many weights");
    let count = from.len();
    // SAFETY: the caller enables the instructions. A whole register lies in both slices: the last one overlaps the one
    // before; if there are fewer weights than lanes, it is in a copy, of which only the first lanes are stored.
    unsafe {
        if count < L::WIDTH {
            let mut whole = [f16::ZERO; 16];
            whole[..count].copy_from_slice(from);
            return L::load_half(whole.as_ptr()).store_first(to.as_mut_ptr(), count);
        }
        for at in (0..count).step_by(L::WIDTH) {
            let at = at.min(count - L::WIDTH);
            L::load_half(from.as_ptr().add(at)).store(to.as_mut_ptr().add(at));
        }
    }
}

/// # Safety
/// As for [`Widen`]; the CPU has AVX-512 F, BW, DQ and VL.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn avx512(from: &[f16], to: &mut [f32]) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { widen::<crate::lanes::avx512::F32x16>(from, to) }
}

/// # Safety
/// As for [`Widen`]; the CPU has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2(from: &[f16], to: &mut [f32]) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { widen::<crate::lanes::avx2::F32x8>(from, to) }
}

/// # Safety
/// As for [`Widen`]; the CPU has NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon(from: &[f16], to: &mut [f32]) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { widen::<crate::lanes::neon::F32x4>(from, to) }
}

/// # Safety
/// None; unsafe only because [`Widen`] is.
pub(super) unsafe fn scalar(from: &[f16], to: &mut [f32]) {
    to.iter_mut().zip(from).for_each(|(to, from)| *to = from.to_f32());
}
