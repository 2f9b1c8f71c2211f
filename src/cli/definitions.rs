//! `ryemill definitions`: what scripts can call, for the Rhai language server (`.d.rhai` files) or for programs (JSON).

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use super::{Failure, Outcome, say};
use crate::script::definitions;
use crate::script::reference::{Function, Namespace, Signature, reference};

pub fn run(folder: &Path, as_json: bool) -> Outcome {
    if as_json {
        let namespaces: Vec<Value> = reference().iter().map(namespace).collect();
        say(&json!({ "namespaces": namespaces }).to_string());
        return Ok(());
    }
    let files = definitions::files();
    let written = fs::create_dir_all(folder)
        .and_then(|()| files.iter().try_for_each(|(name, text)| fs::write(folder.join(name), text)));
    written.map_err(|error| Failure::Failed(format!("{} cannot be written: {error}", folder.display())))?;
    say(&format!("wrote {} definition files into {}", files.len(), folder.display()));
    Ok(())
}

fn namespace(namespace: &Namespace) -> Value {
    json!({
        "name": namespace.name, "about": namespace.about, "notes": namespace.notes,
        "functions": namespace.functions.iter().map(function).collect::<Vec<_>>(),
    })
}

fn function(function: &Function) -> Value {
    let signature = |text: &&'static str| {
        let Signature { name, parameters, returns } = Signature::of(text);
        let parameters: Vec<_> =
            parameters.into_iter().map(|(name, kind)| json!({ "name": name, "type": kind })).collect();
        json!({ "name": name, "parameters": parameters, "returns": returns })
    };
    json!({
        "signatures": function.signatures.iter().map(signature).collect::<Vec<_>>(),
        "about": function.about, "example": function.example, "method": function.method,
    })
}
