//! Whose fault it may be: which callers a run of bad outcomes comes from, and whom it therefore binds.
//!
//! What one caller sees alone may be its own doing (a prompt that always times out, a stream that it always cuts). So
//! evidence that comes from one caller binds that caller, and everybody else only when another one has seen the same.
//! Callers are told apart by the [`KeyLabel`] of their requests; all requests without one are one caller.

/// A caller: a number made of its label, 0 without one.
pub(crate) type Caller = u64;

/// Whose outcomes the evidence is made of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Witness {
    #[default]
    Nobody,
    /// All of it is this caller's.
    One(Caller),
    Many,
}

impl Witness {
    pub(crate) fn and(self, caller: Caller) -> Self {
        match self {
            Self::Nobody => Self::One(caller),
            Self::One(known) if known == caller => self,
            _ => Self::Many,
        }
    }

    /// Whether what these have seen holds this caller back, too. What nobody has seen is not evidence, and binds all.
    pub(crate) fn binds(self, caller: Caller) -> bool {
        match self {
            Self::Nobody | Self::Many => true,
            Self::One(known) => known == caller,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_callers_evidence_binds_that_caller() {
        let one = Witness::Nobody.and(7);
        assert_eq!(one.and(7), one);
        assert!(one.binds(7) && !one.binds(8) && !one.binds(0));
        let many = one.and(8);
        assert!([0, 7, 8, 9].iter().all(|caller| many.and(9).binds(*caller)) && Witness::Nobody.binds(3));
    }

    #[test]
    fn a_label_is_a_caller_and_no_label_is_another() {
        use crate::request::KeyLabel;
        use http::Request;
        let caller = |request: &Request<()>| crate::context::View::of(request).caller();
        let mut request = Request::new(());
        assert_eq!(caller(&request), 0);
        request.extensions_mut().insert(KeyLabel::new("team-a"));
        let a = caller(&request);
        request.extensions_mut().insert(KeyLabel::new("team-b"));
        assert!(a != 0 && caller(&request) != a);
    }
}
