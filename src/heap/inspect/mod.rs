//! Beside the layers: what looks at a whole heap and changes nothing. Not in musl; the libraries
//! ship the dump.

pub mod dump;
