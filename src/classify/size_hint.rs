//! Lengths of bodies of which a part is kept.

use http_body::SizeHint;

/// Of so many bytes, and the rest where there is one.
pub(super) fn behind(kept: usize, rest: Option<SizeHint>) -> SizeHint {
    let (rest, kept) = (rest.unwrap_or_else(|| SizeHint::with_exact(0)), kept as u64);
    let mut hint = SizeHint::new();
    hint.set_lower(rest.lower().saturating_add(kept));
    if let Some(upper) = rest.upper().and_then(|upper| upper.checked_add(kept)) {
        hint.set_upper(upper);
    }
    hint
}
