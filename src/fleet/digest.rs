//! The names that members agree by: SHA-256 ([FIPS 180-4](https://doi.org/10.6028/NIST.FIPS.180-4)), cut to 128 bits.
//! Labels come from callers, so a name that one of them makes up must not meet another's. Pure.

const ROUNDS: [u32; 64] = [
    0x428a_2f98,
    0x7137_4491,
    0xb5c0_fbcf,
    0xe9b5_dba5,
    0x3956_c25b,
    0x59f1_11f1,
    0x923f_82a4,
    0xab1c_5ed5,
    0xd807_aa98,
    0x1283_5b01,
    0x2431_85be,
    0x550c_7dc3,
    0x72be_5d74,
    0x80de_b1fe,
    0x9bdc_06a7,
    0xc19b_f174,
    0xe49b_69c1,
    0xefbe_4786,
    0x0fc1_9dc6,
    0x240c_a1cc,
    0x2de9_2c6f,
    0x4a74_84aa,
    0x5cb0_a9dc,
    0x76f9_88da,
    0x983e_5152,
    0xa831_c66d,
    0xb003_27c8,
    0xbf59_7fc7,
    0xc6e0_0bf3,
    0xd5a7_9147,
    0x06ca_6351,
    0x1429_2967,
    0x27b7_0a85,
    0x2e1b_2138,
    0x4d2c_6dfc,
    0x5338_0d13,
    0x650a_7354,
    0x766a_0abb,
    0x81c2_c92e,
    0x9272_2c85,
    0xa2bf_e8a1,
    0xa81a_664b,
    0xc24b_8b70,
    0xc76c_51a3,
    0xd192_e819,
    0xd699_0624,
    0xf40e_3585,
    0x106a_a070,
    0x19a4_c116,
    0x1e37_6c08,
    0x2748_774c,
    0x34b0_bcb5,
    0x391c_0cb3,
    0x4ed8_aa4a,
    0x5b9c_ca4f,
    0x682e_6ff3,
    0x748f_82ee,
    0x78a5_636f,
    0x84c8_7814,
    0x8cc7_0208,
    0x90be_fffa,
    0xa450_6ceb,
    0xbef9_a3f7,
    0xc671_78f2,
];

/// 32 hexadecimal digits of these parts: others, or the same otherwise divided, give others.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut text = Vec::new();
    for part in parts {
        text.extend_from_slice(&(part.len() as u64).to_be_bytes());
        text.extend_from_slice(part);
    }
    let hash = sha256(text);
    format!("{:08x}{:08x}{:08x}{:08x}", hash[0], hash[1], hash[2], hash[3])
}

/// A label for a project that replicas agree on and others cannot guess: HMAC-SHA-256
/// ([RFC 2104](https://www.rfc-editor.org/rfc/rfc2104)) of `project` under `secret`, cut to 32 hexadecimal digits.
///
/// For a service that knows its callers' projects by something that must not stand in a store, such as an API key: the
/// label goes into a [`KeyLabel`](crate::request::KeyLabel), and each replica that was given the same secret makes the same one.
/// The secret should have at least 16 bytes from a random source; with an empty one anybody can try names.
///
/// ```
/// use tower_gemini::fleet::keyed_label;
///
/// let one = keyed_label(b"0123456789abcdef", b"project-a");
/// assert_eq!(one, keyed_label(b"0123456789abcdef", b"project-a"));
/// assert_ne!(one, keyed_label(b"another secret..", b"project-a"));
/// ```
#[must_use]
pub fn keyed_label(secret: &[u8], project: &[u8]) -> String {
    let hash = hmac(secret, project);
    format!("{:08x}{:08x}{:08x}{:08x}", hash[0], hash[1], hash[2], hash[3])
}

fn hmac(secret: &[u8], text: &[u8]) -> [u32; 8] {
    let bytes = |hash: [u32; 8]| hash.into_iter().flat_map(u32::to_be_bytes).collect::<Vec<u8>>();
    let mut block = if secret.len() > 64 { bytes(sha256(secret.to_vec())) } else { secret.to_vec() };
    block.resize(64, 0);
    let with = |pad: u8, text: &[u8]| {
        let padded = block.iter().map(|byte| byte ^ pad).chain(text.iter().copied());
        sha256(padded.collect())
    };
    with(0x5c, &bytes(with(0x36, text)))
}

fn sha256(mut text: Vec<u8>) -> [u32; 8] {
    let bits = text.len() as u64 * 8;
    text.push(0x80);
    while text.len() % 64 != 56 {
        text.push(0);
    }
    text.extend_from_slice(&bits.to_be_bytes());
    let mut hash = [
        0x6a09_e667,
        0xbb67_ae85,
        0x3c6e_f372,
        0xa54f_f53a,
        0x510e_527f,
        0x9b05_688c,
        0x1f83_d9ab,
        0x5be0_cd19_u32,
    ];
    for block in text.chunks_exact(64) {
        let mut w = [0_u32; 64];
        for (word, bytes) in w.iter_mut().zip(block.chunks_exact(4)) {
            *word = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        }
        for i in 16..64 {
            let s0 = w[i - 15].rotate_right(7) ^ w[i - 15].rotate_right(18) ^ (w[i - 15] >> 3);
            let s1 = w[i - 2].rotate_right(17) ^ w[i - 2].rotate_right(19) ^ (w[i - 2] >> 10);
            w[i] = w[i - 16].wrapping_add(s0).wrapping_add(w[i - 7]).wrapping_add(s1);
        }
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = hash;
        for i in 0..64 {
            let s1 = e.rotate_right(6) ^ e.rotate_right(11) ^ e.rotate_right(25);
            let ch = (e & f) ^ (!e & g);
            let t1 = h.wrapping_add(s1).wrapping_add(ch).wrapping_add(ROUNDS[i]).wrapping_add(w[i]);
            let s0 = a.rotate_right(2) ^ a.rotate_right(13) ^ a.rotate_right(22);
            let t2 = s0.wrapping_add((a & b) ^ (a & c) ^ (b & c));
            (h, g, f, e, d, c, b, a) = (g, f, e, d.wrapping_add(t1), c, b, a, t1.wrapping_add(t2));
        }
        for (sum, more) in hash.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *sum = sum.wrapping_add(more);
        }
    }
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of FIPS 180-4, and one that fills its last block.
    #[test]
    fn it_is_sha_256() {
        let hex = |text: &str| sha256(text.into()).map(|word| format!("{word:08x}")).concat();
        assert_eq!(hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert_eq!(
            hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        );
    }

    /// The second, and the sixth, example of RFC 4231: a short secret, and one longer than a block.
    #[test]
    fn it_is_hmac_sha_256() {
        let hex = |secret: &[u8], text: &str| {
            hmac(secret, text.as_bytes()).map(|word| format!("{word:08x}")).concat()
        };
        assert_eq!(
            hex(b"Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            hex(&[0xaa; 131], "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
        assert_eq!(keyed_label(b"Jefe", b"what do ya want for nothing?"), "5bdcc146bf60754e6a042426089575c7");
    }

    #[test]
    fn parts_are_kept_apart() {
        assert_eq!(digest(&[b"a", b"b"]).len(), 32);
        assert_ne!(digest(&[b"ab", b""]), digest(&[b"a", b"b"]));
        assert_ne!(digest(&[b"ab"]), digest(&[b"ab", b""]));
    }
}
