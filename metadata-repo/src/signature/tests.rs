#![allow(clippy::unwrap_used)]

use super::*;
use proptest::prelude::*;

const UNSIGNED: &[u8] =
    b"tree 1\nparent 2\nauthor a <a> 1 +0000\ncommitter a <a> 1 +0000\n\nsubject\n\nFormat: 2\n";

fn key() -> SigningKey {
    SigningKey::from_bytes(&[7; 32])
}

fn sample() -> Vec<u8> {
    signed(UNSIGNED, &key()).unwrap()
}

#[test]
fn signing_adds_one_header_of_fixed_length_that_verifies() {
    let signed = sample();
    assert_eq!(signed.len(), UNSIGNED.len() + HEADER_BYTES);
    assert_eq!(verify(&signed), Ok(key().public_key()));
    let text = String::from_utf8(signed).unwrap();
    assert!(text.lines().all(|line| line.len() <= LINE + 1), "{text}");
    assert_eq!(verify(UNSIGNED), Err(SignatureError::Missing));
}

#[test]
fn base64_is_rfc_4648s() {
    for (bytes, text) in [
        (&b""[..], ""),
        (b"f", "Zg=="),
        (b"fo", "Zm8="),
        (b"foo", "Zm9v"),
        (b"foobar", "Zm9vYmFy"),
        (&[0xfb, 0xff], "+/8="),
    ] {
        assert_eq!(base64(bytes), text);
        assert_eq!(unbase64(text).unwrap(), bytes);
    }
}

/// As `ssh-keygen -y` prints it (RFC 4253, RFC 8709).
#[test]
fn golden_public_key() {
    let golden = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOpKbGPinFIKvvVQexMuxfmVR3auvr57kkIe6mkURtIs";
    assert_eq!(openssh_key(&key().public_key()), golden);
}

#[test]
fn a_changed_byte_anywhere_is_noticed() {
    let signed = sample();
    for at in 0..signed.len() {
        for flip in [1, 0x20, 0x80] {
            let mut bad = signed.clone();
            bad[at] ^= flip;
            assert!(verify(&bad).is_err(), "byte {at} ^ {flip}");
        }
    }
}

#[test]
fn other_signatures_and_headers_are_refused() {
    let text = String::from_utf8(sample()).unwrap();
    let at = text.find("gpgsig ").unwrap();
    let header = &text[at..at + HEADER_BYTES];
    let unsigned = String::from_utf8_lossy(UNSIGNED);
    let huge = format!("gpgsig {}", "A\n ".repeat(100_000));
    for (what, bad) in [
        ("twice", text.replacen(header, &header.repeat(2), 1)),
        (
            "another first",
            text.replacen(header, &format!("x y\n{header}"), 1),
        ),
        (
            "a header behind",
            text.replacen(header, &format!("{header}x y\n"), 1),
        ),
        ("sha256's", text.replacen("gpgsig ", "gpgsig-sha256 ", 1)),
        ("huge", text.replacen("gpgsig ", &huge, 1)),
        (
            "cut",
            text.replacen(" -----END SSH SIGNATURE-----\n", "", 1),
        ),
        ("empty line", text.replacen("-----\n ", "-----\n \n ", 1)),
        ("carriage returns", text.replace('\n', "\r\n")),
        ("other padding", text.replacen("=\n", "A\n", 1)),
        ("in the message", format!("{unsigned}\n{header}")),
        ("pgp", text.replace("SSH SIGNATURE", "PGP SIGNATURE")),
    ] {
        assert_ne!(bad, text, "{what}");
        assert!(verify(bad.as_bytes()).is_err(), "{what}");
    }
}

#[test]
fn a_signature_counts_for_its_own_commit_only() {
    let text = String::from_utf8(sample()).unwrap();
    let other = text.replace("subject", "another");
    assert_eq!(verify(other.as_bytes()), Err(SignatureError::Wrong));
    // of another namespace: what a key signs for ssh or for files is not a commit
    let mut bytes = MAGIC.to_vec();
    for field in [&b"file"[..], b"", HASH, &Sha512::digest(UNSIGNED)] {
        string(&mut bytes, field);
    }
    let forged = armoured(&key().public_key(), &Signer::sign(&key(), &bytes));
    let at = text.find("gpgsig ").unwrap();
    let forged = text.replace(&text[at..at + HEADER_BYTES], &forged);
    assert_eq!(verify(forged.as_bytes()), Err(SignatureError::Wrong));
}

#[test]
fn keys_of_small_order_sign_nothing() {
    // the neutral element verifies anything for who is not strict
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let end = header_end(UNSIGNED).unwrap();
    let header = armoured(&neutral, &signature);
    let forged = [&UNSIGNED[..end], header.as_bytes(), &UNSIGNED[end..]].concat();
    assert_eq!(verify(&forged), Err(SignatureError::Wrong));
}

proptest! {
    #[test]
    fn any_bytes_are_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        prop_assert!(verify(&bytes).is_err());
        let _ = parse(&bytes);
    }

    #[test]
    fn what_is_parsed_is_written_the_same(
        key in any::<[u8; 32]>(),
        signature in prop::collection::vec(any::<u8>(), 64),
    ) {
        let signature: [u8; 64] = signature.try_into().unwrap();
        let header = armoured(&key, &signature);
        prop_assert_eq!(header.len(), HEADER_BYTES);
        prop_assert_eq!(parse(header.as_bytes()), Some((key, signature)));
    }
}

/// Seeds made by a program of its own.
#[test]
fn golden_seeds() {
    let commit = include_bytes!("../../../fuzz/seeds/signature/commit");
    assert_eq!(verify(commit), Ok(key().public_key()));
    let header = include_bytes!("../../../fuzz/seeds/signature/header");
    let (found, _) = parse(header).unwrap();
    assert_eq!(found, key().public_key());
    crate::fuzzing::signed_commit(commit);
}

#[test]
#[ignore = "prints times, proves nothing"]
fn timing() {
    let commit = sample();
    let start = std::time::Instant::now();
    for _ in 0..10_000 {
        verify(&commit).unwrap();
    }
    println!("verify: {:?} each", start.elapsed() / 10_000);
    let start = std::time::Instant::now();
    for _ in 0..10_000 {
        signed(UNSIGNED, &key()).unwrap();
    }
    println!("sign: {:?} each", start.elapsed() / 10_000);
}
