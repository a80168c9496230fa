//! From a passphrase to a key: Argon2id, version 0x13 (RFC 9106), within bounds that are checked first.

use crate::random::RandomError;
use crate::vault_key::scrub_stack;
use argon2::{Algorithm, Argon2, Block, Params, Version};
use keyward_secret::{Key32, Passphrase};
use std::time::Duration;
use zeroize::Zeroize;

/// Cost parameters of Argon2id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KdfParams {
    /// Memory, in KiB: 65,536 to 1,048,576.
    pub m_kib: u32,
    /// Passes: 3 to 16.
    pub t: u32,
    /// Lanes: 1 to 4.
    pub p: u32,
}

impl KdfParams {
    /// The weakest parameters that are ever written or accepted: 64 MiB, 3 passes, 1 lane.
    pub const FLOOR: Self = Self { m_kib: 65_536, t: 3, p: 1 };
    /// The strongest that are accepted, so that a hostile file cannot ask for all memory.
    pub const CEILING: Self = Self { m_kib: 1_048_576, t: 16, p: 4 };

    /// Checks the bounds. Nothing is allocated.
    ///
    /// # Errors
    /// [`KdfError::Bounds`].
    pub fn check(&self) -> Result<(), KdfError> {
        let (low, high) = (Self::FLOOR, Self::CEILING);
        let inside = (low.m_kib..=high.m_kib).contains(&self.m_kib)
            && (low.t..=high.t).contains(&self.t)
            && (low.p..=high.p).contains(&self.p);
        if inside { Ok(()) } else { Err(KdfError::Bounds(*self)) }
    }
}

/// Deriving a key from a passphrase failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KdfError {
    /// The parameters are outside of the bounds.
    #[error("m = {} KiB, t = {}, p = {} is outside of the bounds", .0.m_kib, .0.t, .0.p)]
    Bounds(KdfParams),
    /// The salt is shorter than 16 or longer than 32 bytes.
    #[error("the salt has {0} bytes instead of 16 to 32")]
    Salt(usize),
    /// The memory that the parameters ask for is not there.
    #[error("{0} KiB of memory are not available")]
    Memory(u32),
    /// No random salt could be drawn.
    #[error(transparent)]
    Random(#[from] RandomError),
}

/// Derives 256 bits from a passphrase. Takes the memory of the parameters for as long as it runs, and wipes it.
///
/// # Errors
/// [`KdfError::Bounds`] and [`KdfError::Salt`] before any memory is taken; [`KdfError::Memory`].
pub fn derive_from_passphrase(passphrase: &Passphrase, salt: &[u8], params: &KdfParams) -> Result<Key32, KdfError> {
    params.check()?;
    if !(16..=32).contains(&salt.len()) {
        return Err(KdfError::Salt(salt.len()));
    }
    let cost = Params::new(params.m_kib, params.t, params.p, Some(32)).map_err(|_| KdfError::Bounds(*params))?;
    let mut blocks: Vec<Block> = Vec::new();
    blocks.try_reserve_exact(cost.block_count()).map_err(|_| KdfError::Memory(params.m_kib))?;
    blocks.resize(cost.block_count(), Block::default());
    let argon = Argon2::new(Algorithm::Argon2id, Version::V0x13, cost);
    let key = Key32::try_make(|page| {
        // EXPOSE: input of the key derivation.
        passphrase.expose(|typed| argon.hash_password_into_with_memory(typed, salt, page, &mut blocks[..]))
    });
    for block in &mut blocks {
        block.zeroize();
    }
    scrub_stack();
    key.map_err(|_| KdfError::Bounds(*params))
}

const TARGET: Duration = Duration::from_millis(500);
/// Calibration stops raising memory here, so that unlocking fits small machines, and raises passes instead.
const CALIBRATED_M_KIB: u32 = 262_144;

/// Chooses parameters that take about 0.5 s, from the time that `measure` reports for the floor. Never under the floor:
/// a slow machine waits longer.
pub fn calibrate(mut measure: impl FnMut(&KdfParams) -> Duration) -> KdfParams {
    let floor = KdfParams::FLOOR;
    let took = measure(&floor).max(Duration::from_millis(1)).as_micros();
    let times = |base: u32, factor_milli: u128| -> u32 {
        u32::try_from(u128::from(base) * factor_milli / 1000).unwrap_or(u32::MAX)
    };
    let factor_milli = TARGET.as_micros() * 1000 / took;
    let m_kib = (times(floor.m_kib, factor_milli) / 1024 * 1024).clamp(floor.m_kib, CALIBRATED_M_KIB);
    let left_milli = factor_milli * u128::from(floor.m_kib) / u128::from(m_kib);
    let t = times(floor.t, left_milli).clamp(floor.t, KdfParams::CEILING.t);
    KdfParams { m_kib, t, p: floor.p }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn the_formula_is_argon2id_of_rfc_9106() {
        // Computed by the reference implementation (libargon2): m = 64 MiB, t = 3, p = 1.
        let vector: serde_json::Value = serde_json::from_str(include_str!("../tests/vectors/argon2id.json")).unwrap();
        let salt = hex::decode(vector["salt"].as_str().unwrap()).unwrap();
        let typed = Passphrase::new(vector["passphrase"].as_str().unwrap().into()).unwrap();
        let key = derive_from_passphrase(&typed, &salt, &KdfParams::FLOOR).unwrap();
        assert_eq!(key.expose(|k| hex::encode(k)), vector["key"].as_str().unwrap());
    }

    #[test]
    fn hostile_parameters_are_refused_before_memory_is_taken() {
        let typed = Passphrase::new(b"x".to_vec()).unwrap();
        let ok = KdfParams::FLOOR;
        for bad in [
            KdfParams { m_kib: 65_535, ..ok },
            KdfParams { m_kib: 1_048_577, ..ok },
            KdfParams { m_kib: u32::MAX, ..ok },
            KdfParams { t: 2, ..ok },
            KdfParams { t: 17, ..ok },
            KdfParams { p: 0, ..ok },
            KdfParams { p: 5, ..ok },
        ] {
            assert_eq!(derive_from_passphrase(&typed, &[0; 16], &bad).unwrap_err(), KdfError::Bounds(bad));
        }
        for n in [0, 15, 33] {
            assert_eq!(derive_from_passphrase(&typed, &vec![0; n], &ok).unwrap_err(), KdfError::Salt(n));
        }
    }

    #[test]
    fn calibration_aims_at_half_a_second_and_never_goes_under_the_floor() {
        for (floor_takes_ms, m_kib, t) in [
            (2000, 65_536, 3),
            (500, 65_536, 3),
            (250, 131_072, 3),
            (125, 262_144, 3),
            (25, 262_144, 15),
            (1, 262_144, 16),
        ] {
            let got = calibrate(|asked| {
                assert_eq!(*asked, KdfParams::FLOOR);
                Duration::from_millis(floor_takes_ms)
            });
            assert_eq!(got, KdfParams { m_kib, t, p: 1 }, "{floor_takes_ms} ms");
            got.check().unwrap();
        }
        calibrate(|_| Duration::ZERO).check().unwrap();
        calibrate(|_| Duration::MAX).check().unwrap();
    }
}
