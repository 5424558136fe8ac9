//! Where fields of a type lie, for who reads a heap from outside (`inspect/description.rs`).

/// The places of fields in a type, in bytes, and behind them numbers that tell more of it:
/// `places!(Type: field, field.inner; number)`.
macro_rules! places {
    ($type:ty: $($($field:ident).+),+ $(; $($more:expr),+)?) => {
        [$(core::mem::offset_of!($type, $($field).+),)+ $($($more),+)?]
    };
}
pub(crate) use places;
