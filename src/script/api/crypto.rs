//! `crypto`: digests, message codes, encodings and a comparison in constant time, of strings and blobs.

use data_encoding::{BASE64, BASE64URL_NOPAD, Encoding, HEXLOWER, HEXLOWER_PERMISSIVE};
use hmac::digest::KeyInit;
use hmac::{Hmac, Mac};
use rhai::{Blob, Dynamic, Module};
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

use super::reference::{Function, Namespace, Outcome};
use super::{args, over_bytes, put};
use crate::job::ErrorKind;
use crate::script::account;
use crate::script::context::ScriptResult;
use crate::script::ports::HostError;

/// A longer key than this would be one block as well, after hashing. Bytes.
const MAX_KEY: usize = 4 << 10;

pub const REFERENCE: Namespace = Namespace {
    name: "crypto",
    about: "",
    functions: &[
        Function::new(
            &["sha256(data: string | blob) -> string"],
            "the SHA-256 digest, as hex",
            r#"crypto::sha256("abc")"#,
            Outcome::Value(r#""ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad""#),
        ),
        Function::new(
            &["sha512(data: string | blob) -> string"],
            "the SHA-512 digest, as hex",
            r#"crypto::sha512("abc").sub_string(0, 16)"#,
            Outcome::Value(r#""ddaf35a193617aba""#),
        ),
        Function::new(
            &["hmac_sha256(key: string | blob, data: string | blob) -> string"],
            "the code that only those with the key can make, as hex",
            r#"crypto::hmac_sha256("key", "The quick brown fox jumps over the lazy dog").sub_string(0, 16)"#,
            Outcome::Value(r#""f7bc83f430538424""#),
        ),
        Function::new(
            &["equal(a: string | blob, b: string | blob) -> bool"],
            "whether both have the same bytes, in a time that does not tell how many: for codes and tokens",
            r#"crypto::equal("5f1d", "5f1e")"#,
            Outcome::Value("false"),
        ),
        Function::new(
            &["base64_encode(data: string | blob) -> string"],
            "base64 with padding",
            r#"crypto::base64_encode("Grüße")"#,
            Outcome::Value(r#""R3LDvMOfZQ==""#),
        ),
        Function::new(
            &["base64_decode(text: string) -> blob"],
            "the bytes of such a text",
            r#"crypto::base64_decode("R3LDvMOfZQ==").as_string()"#,
            Outcome::Value(r#""Grüße""#),
        ),
        Function::new(
            &["base64url_encode(data: string | blob) -> string"],
            "base64 for URLs and file names: `-` and `_`, no padding",
            "crypto::base64url_encode(blob(2, 255))",
            Outcome::Value(r#""__8""#),
        ),
        Function::new(
            &["base64url_decode(text: string) -> blob"],
            "the bytes of such a text, with or without padding",
            r#"crypto::base64url_decode("eyJhIjoxfQ").as_string()"#,
            Outcome::Value(r#""{\"a\":1}""#),
        ),
        Function::new(
            &["hex_encode(data: string | blob) -> string"],
            "two lower-case digits for each byte",
            r#"crypto::hex_encode("abc")"#,
            Outcome::Value(r#""616263""#),
        ),
        Function::new(
            &["hex_decode(text: string) -> blob"],
            "the bytes of such a text, in either case",
            r#"crypto::hex_decode("616263").as_string()"#,
            Outcome::Value(r#""abc""#),
        ),
    ],
    notes: "A string counts as its UTF-8 bytes. What is decoded is a blob: `.as_string()` makes text of it.",
};

pub fn module() -> Module {
    let mut module = Module::new();
    put!(&mut module, "sha256", |data: Dynamic| digest::<Sha256>("crypto::sha256", &data));
    put!(&mut module, "sha512", |data: Dynamic| digest::<Sha512>("crypto::sha512", &data));
    put!(&mut module, "hmac_sha256", |key: Dynamic, data: Dynamic| hmac_sha256(&key, &data));
    put!(&mut module, "equal", |a: Dynamic, b: Dynamic| equal(&a, &b));
    put!(&mut module, "base64_encode", |data: Dynamic| encode("crypto::base64_encode", BASE64, &data));
    put!(&mut module, "base64_decode", |text: Dynamic| decode("crypto::base64_decode", BASE64, &text));
    put!(&mut module, "base64url_encode", |data: Dynamic| encode("crypto::base64url_encode", BASE64URL_NOPAD, &data));
    put!(&mut module, "base64url_decode", |text: Dynamic| decode("crypto::base64url_decode", BASE64URL_NOPAD, &text));
    put!(&mut module, "hex_encode", |data: Dynamic| encode("crypto::hex_encode", HEXLOWER, &data));
    put!(&mut module, "hex_decode", |text: Dynamic| decode("crypto::hex_decode", HEXLOWER_PERMISSIVE, &text));
    module
}

fn digest<D: Digest>(function: &str, data: &Dynamic) -> ScriptResult<String> {
    over_bytes(function, "data", data, String::capacity, |bytes| Ok(HEXLOWER.encode(&D::digest(bytes))))
}

fn hmac_sha256(key: &Dynamic, data: &Dynamic) -> ScriptResult<String> {
    const FUNCTION: &str = "crypto::hmac_sha256";

    let code = args::with_bytes(FUNCTION, "key", key, |key| {
        if key.len() > MAX_KEY {
            return Err(args::wrong(format!(
                "{FUNCTION}: `key` has {} bytes, at most {MAX_KEY} are allowed",
                key.len()
            )));
        }
        // No length is invalid.
        Hmac::<Sha256>::new_from_slice(key).map_err(|error| args::wrong(format!("{FUNCTION}: {error}")))
    })??;
    over_bytes(FUNCTION, "data", data, String::capacity, move |bytes| {
        Ok(HEXLOWER.encode(&code.chain_update(bytes).finalize().into_bytes()))
    })
}

fn equal(a: &Dynamic, b: &Dynamic) -> ScriptResult<bool> {
    const FUNCTION: &str = "crypto::equal";

    // Digests compare as the texts do, and long texts leave the thread.
    let digest = |argument: &str, value: &Dynamic| {
        over_bytes(FUNCTION, argument, value, |_| 0, |bytes| Ok(<[u8; 32]>::from(Sha256::digest(bytes))))
    };
    Ok(digest("a", a)?.ct_eq(&digest("b", b)?).into())
}

fn encode(function: &str, encoding: Encoding, data: &Dynamic) -> ScriptResult<String> {
    args::with_bytes(function, "data", data, |bytes| account::reserve(encoding.encode_len(bytes.len())))??;
    over_bytes(function, "data", data, String::capacity, move |bytes| Ok(encoding.encode(bytes)))
}

fn decode(function: &'static str, encoding: Encoding, text: &Dynamic) -> ScriptResult<Blob> {
    args::text(function, "text", text)?;
    args::with_bytes(function, "text", text, |bytes| account::reserve(bytes.len()))??;
    over_bytes(function, "text", text, Blob::capacity, move |bytes| {
        let unpadded = encoding.specification().padding.is_none();
        let end = bytes.iter().rposition(|byte| *byte != b'=').map_or(0, |last| last + 1);
        let bytes = if unpadded { &bytes[..end] } else { bytes };
        encoding.decode(bytes).map_err(|error| undecoded(function, &error))
    })
}

fn undecoded(function: &str, error: &data_encoding::DecodeError) -> HostError {
    HostError::new(ErrorKind::Script, format!("{function}: `text` is not valid: {error}"), false)
}
