//! The roles of a convolution's optional operands, in addition to images, weights and bias.

use serde::{Deserialize, Serialize};

/// The role of an operand. Operands are in the order of this list, after the bias.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Of the result's shape, added before the activation (ResNet).
    Residual,
    /// Of the result's shape, added after the activation (MobileNet).
    LateResidual,
    /// One factor per image and input channel (squeeze-and-excite).
    Scale,
    /// Which channels of the images exist: they are [masked](super::masked).
    MaskIn,
    /// Which channels of the result are needed: it is masked, and so is a residual, by the same mask.
    MaskOut,
    /// `[2, channels of the result]`: factors and summands, applied between the activation and a late residual.
    Affine,
}

impl Role {
    const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// The roles that a convolution has operands for; one bit each, in the order of [`Role`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roles(u8);

impl Roles {
    /// Only images, weights and bias.
    pub const NONE: Self = Self(0);

    /// Number of operands that are always present.
    const BEFORE: usize = 3;

    /// These roles and one more.
    #[must_use]
    pub const fn with(self, role: Role) -> Self {
        Self(self.0 | role.bit())
    }

    /// These roles with a late residual turned into one added before the activation.
    #[must_use]
    pub fn early(self) -> Self {
        let late = Role::LateResidual;
        if self.has(late) { Self(self.0 & !late.bit()).with(Role::Residual) } else { self }
    }

    /// Whether there is an operand with this role.
    #[must_use]
    pub fn has(self, role: Role) -> bool {
        self.0 & role.bit() != 0
    }

    /// These roles without masks.
    #[must_use]
    pub fn unmasked(self) -> Self {
        Self(self.0 & !(Role::MaskIn.bit() | Role::MaskOut.bit()))
    }

    /// Position of the operand among all.
    #[must_use]
    pub fn position(self, role: Role) -> Option<usize> {
        let before = self.0 & (role.bit() - 1);
        self.has(role).then_some(Self::BEFORE + before.count_ones() as usize)
    }

    /// Position of the residual, early or late.
    #[must_use]
    pub fn residual(self) -> Option<usize> {
        self.position(Role::Residual).or(self.position(Role::LateResidual))
    }

    /// Number of operands, including those that are always present.
    #[must_use]
    pub fn arity(self) -> usize {
        Self::BEFORE + self.0.count_ones() as usize
    }

    /// Whether images or result are masked.
    #[must_use]
    pub fn are_masked(self) -> bool {
        self.has(Role::MaskIn) || self.has(Role::MaskOut)
    }

    /// Whether all roles are known, at most one is a residual, and there is no mask beside a scale or an affine map: a
    /// package may claim anything.
    #[must_use]
    pub fn is_sound(self) -> bool {
        self.0 < Role::Affine.bit() << 1
            && !(self.has(Role::Residual) && self.has(Role::LateResidual))
            && !((self.has(Role::Scale) || self.has(Role::Affine)) && self.are_masked())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operands_follow_the_order_of_their_roles() {
        let both = Roles::NONE.with(Role::Scale).with(Role::LateResidual);
        assert_eq!([both.position(Role::LateResidual), both.position(Role::Scale)], [Some(3), Some(4)]);
        assert_eq!((both.residual(), both.position(Role::Residual), both.arity()), (Some(3), None, 5));
        assert_eq!(both.early(), Roles::NONE.with(Role::Scale).with(Role::Residual));
        assert_eq!(Roles::NONE.with(Role::Scale).position(Role::Scale), Some(3));
        assert!(both.is_sound() && !both.with(Role::Residual).is_sound() && !Roles(64).is_sound());
        assert_eq!(
            (both.with(Role::Affine).position(Role::Affine), both.with(Role::Affine).is_sound()),
            (Some(5), true)
        );
        assert!(!Roles::NONE.with(Role::Affine).with(Role::MaskOut).is_sound());
        assert!(!both.with(Role::MaskIn).is_sound() && Roles::NONE.with(Role::MaskIn).with(Role::MaskOut).is_sound());
    }
}
