//! Which vector instructions this CPU has, detected once at run time.
//!
//! A build for one architecture contains the kernels of all its instruction sets. The table of each kernel family lists
//! the instruction set that an entry needs, and [`Isa::is_available`] reports whether this CPU can run it.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;

use serde::{Deserialize, Serialize};

/// A vector instruction set that kernels are written for, from the least to the most capable.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Isa {
    /// Plain Rust: the reference, available everywhere.
    Scalar,
    /// AArch64 Advanced SIMD, 4 lanes of f32.
    Neon,
    /// AVX2 with FMA and F16C, 8 lanes of f32.
    Avx2,
    /// AVX-512 F, BW, DQ and VL, 16 lanes of f32.
    Avx512,
    /// Advanced SIMD with VFPv4 of 32-bit ARM, 4 lanes of f32. It flushes subnormal numbers to zero. Packages store the
    /// place in this list, so it is the last.
    Neon32,
}

impl Isa {
    /// Every instruction set, in ascending order.
    pub const ALL: [Isa; 5] = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Avx512, Isa::Neon32];

    /// The most capable instruction set of this CPU.
    pub fn detect() -> Isa {
        Isa::available().max().unwrap_or(Isa::Scalar)
    }

    /// The instruction sets of this CPU, in ascending order; the first is always [`Isa::Scalar`].
    pub fn available() -> impl Iterator<Item = Isa> {
        Isa::ALL.into_iter().filter(|isa| isa.is_available())
    }

    /// The name that the command line and the environment use.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Scalar => "scalar",
            Isa::Neon => "neon",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Neon32 => "neon32",
        }
    }

    /// Whether this build has kernels for it. A build for another architecture contains at most their names and packed
    /// layouts.
    pub fn is_built(self) -> bool {
        match self {
            Isa::Scalar => true,
            Isa::Neon => cfg!(target_arch = "aarch64"),
            Isa::Avx2 => cfg!(target_arch = "x86_64"),
            Isa::Avx512 => cfg!(all(target_arch = "x86_64", feature = "avx512")),
            Isa::Neon32 => cfg!(target_arch = "arm"),
        }
    }

    /// Whether this build has kernels for the instruction set and this CPU supports all of it. Cheap: the standard
    /// library caches the answer.
    pub fn is_available(self) -> bool {
        match self {
            Isa::Scalar => true,
            #[cfg(target_arch = "aarch64")]
            Isa::Neon => std::arch::is_aarch64_feature_detected!("neon"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => {
                is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") && is_x86_feature_detected!("f16c")
            }
            #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
            Isa::Avx512 => {
                Isa::Avx2.is_available()
                    && is_x86_feature_detected!("avx512f")
                    && is_x86_feature_detected!("avx512bw")
                    && is_x86_feature_detected!("avx512dq")
                    && is_x86_feature_detected!("avx512vl")
            }
            #[cfg(target_arch = "arm")]
            Isa::Neon32 => has_neon_and_vfpv4(),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }

    /// Whether this CPU computes the instruction set's multiply-adds in two halves, so that it starts one per cycle; the
    /// cost models assume two. That is AVX-512 on a Zen 4 core.
    pub fn has_half_rate(self) -> bool {
        static ZEN4: OnceLock<bool> = OnceLock::new();
        self == Isa::Avx512 && self.is_available() && *ZEN4.get_or_init(is_of_family_19h)
    }
}

/// Whether it is an AMD CPU of family 19h; of those, Zen 4 has AVX-512.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
fn is_of_family_19h() -> bool {
    use std::arch::x86_64::__cpuid;
    let (vendor, version) = (__cpuid(0).ebx, __cpuid(1).eax);
    let family = (version >> 8 & 0xf) + (version >> 20 & 0xff);
    vendor == u32::from_le_bytes(*b"Auth") && family == 0x19
}

#[cfg(not(all(target_arch = "x86_64", feature = "avx512")))]
fn is_of_family_19h() -> bool {
    false
}

/// Whether the kernel reports both; the standard library's detection is not stable for 32-bit ARM.
#[cfg(all(target_arch = "arm", any(target_os = "linux", target_os = "android")))]
fn has_neon_and_vfpv4() -> bool {
    /// `HWCAP_NEON` and `HWCAP_VFPv4` of Linux.
    const BOTH: libc::c_ulong = 1 << 12 | 1 << 16;
    static FOUND: OnceLock<bool> = OnceLock::new();
    // SAFETY: reads what the kernel has told the process; any argument is valid.
    *FOUND.get_or_init(|| unsafe { libc::getauxval(libc::AT_HWCAP) } & BOTH == BOTH)
}

#[cfg(all(target_arch = "arm", not(any(target_os = "linux", target_os = "android"))))]
fn has_neon_and_vfpv4() -> bool {
    false
}

impl fmt::Display for Isa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Instructions that a kernel needs beyond its instruction set.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Extension {
    /// None.
    Base,
    /// AVX-512 VNNI: multiplies four pairs of bytes and sums the products in one instruction.
    Vnni512,
    /// NEON with `sdot`.
    DotProd,
    /// NEON with `usdot` and `usmmla`.
    I8mm,
    /// NEON with half-precision arithmetic.
    Fp16,
}

impl Extension {
    /// Whether this CPU has these instructions.
    pub(crate) fn is_available(self) -> bool {
        match self {
            Self::Base => true,
            #[cfg(target_arch = "x86_64")]
            Self::Vnni512 => is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "aarch64")]
            Self::DotProd => std::arch::is_aarch64_feature_detected!("dotprod"),
            #[cfg(target_arch = "aarch64")]
            Self::I8mm => Self::DotProd.is_available() && std::arch::is_aarch64_feature_detected!("i8mm"),
            #[cfg(target_arch = "aarch64")]
            Self::Fp16 => std::arch::is_aarch64_feature_detected!("fp16"),
            #[allow(unreachable_patterns)]
            _ => false,
        }
    }
}

/// Error: the text does not name an instruction set.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct UnknownIsa(String);

impl fmt::Display for UnknownIsa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unknown instruction set '{}' (expected scalar, neon, neon32, avx2 or avx512)", self.0)
    }
}

impl std::error::Error for UnknownIsa {}

impl FromStr for Isa {
    type Err = UnknownIsa;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Isa::ALL.into_iter().find(|isa| isa.name() == text).ok_or_else(|| UnknownIsa(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for isa in Isa::ALL {
            assert_eq!(isa.name().parse(), Ok(isa));
        }
        assert!("AVX2".parse::<Isa>().is_err());
    }

    #[test]
    fn scalar_is_always_available_and_the_best_is_detected() {
        let available: Vec<Isa> = Isa::available().collect();
        assert_eq!(available[0], Isa::Scalar);
        assert_eq!(available.last(), Some(&Isa::detect()));
    }

    #[test]
    fn only_avx512_may_have_half_the_rate() {
        assert!(Isa::ALL.into_iter().all(|isa| !isa.has_half_rate() || isa == Isa::Avx512));
    }
}
