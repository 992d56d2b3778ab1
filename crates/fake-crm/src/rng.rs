//! Random numbers that the seed decides.

/// Which stream of random numbers: contacts keep their content when users are added, and the reverse.
#[derive(Clone, Copy)]
pub(crate) enum Purpose {
    Stamp = 1,
    Contact = 2,
    User = 3,
    Ticket = 4,
    Choices = 5,
    Share = 6,
}

/// SplitMix64. Own code because the numbers are part of what the seed promises: a new release of a library may draw
/// others, and a contact is drawn anew each time somebody reads it, which has to be cheap.
#[derive(Debug, Clone)]
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn of(seed: u64, purpose: Purpose, id: u64) -> Rng {
        let mut rng = Rng(seed ^ (purpose as u64).wrapping_mul(0xA24B_AED4_963E_E407));
        rng.0 = rng.next() ^ id.wrapping_mul(0x9FB2_1C65_1E98_DF25);
        rng
    }

    /// The seed of one account: the same options give different contacts to accounts of different names.
    pub(crate) fn account_seed(seed: u64, account: &str) -> u64 {
        account
            .bytes()
            .fold(seed, |hash, byte| Rng(hash ^ u64::from(byte)).next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 for a bound of 0.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next()) * u128::from(bound)) >> 64) as u64
    }

    pub(crate) fn pick<'a, T>(&mut self, items: &'a [T]) -> &'a T {
        &items[self.below(items.len() as u64) as usize]
    }

    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last as u64 + 1) as usize);
        }
    }
}
