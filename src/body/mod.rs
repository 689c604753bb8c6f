//! Bodies that layers are made of.

pub(crate) mod either;
pub(crate) mod on_end;
