//! The public schema: the checked-in text is what the code gives, and it holds everything of the agreed contract that is
//! built, with the same names and signatures.

use async_graphql::parser::parse_schema;
use async_graphql::parser::types::{FieldDefinition, InputValueDefinition, TypeKind, TypeSystemDefinition};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What of the contract does not exist yet, each with its type or as `Type.field`. An entry that exists fails the test.
const NOT_YET_IN_THE_API: &[&str] = &[
    // sign-up and second factors
    "Mutation.signUp",
    "SignUpInput",
    "SignUpPayload",
    "Mutation.verifyEmail",
    "VerifyEmailInput",
    "VerifyEmailPayload",
    "Mutation.answerChallenge",
    "AnswerChallengeInput",
    // proving numbers
    "Mutation.startCallerIdVerification",
    "StartCallerIdVerificationInput",
    "StartCallerIdVerificationPayload",
    "Mutation.confirmCallerId",
    "ConfirmCallerIdInput",
    "ConfirmCallerIdPayload",
    "Mutation.setDefaultCallerId",
    "SetDefaultCallerIdInput",
    "SetDefaultCallerIdPayload",
    "Mutation.removeCallerId",
    "RemoveCallerIdInput",
    "RemoveCallerIdPayload",
    "Mutation.addCallbackNumber",
    "AddCallbackNumberInput",
    "AddCallbackNumberPayload",
    "Mutation.confirmCallbackNumber",
    "ConfirmCallbackNumberInput",
    "ConfirmCallbackNumberPayload",
    "Mutation.removeCallbackNumber",
    "RemoveCallbackNumberInput",
    "RemoveCallbackNumberPayload",
    "VerificationMethod",
    "Verification",
    "CallerId.history",
    "CallerIdEventConnection",
    "CallerIdEventEdge",
    "CallerIdEvent",
    // SIP credentials
    "Mutation.createSipCredential",
    "CreateSipCredentialInput",
    "Mutation.rotateSipCredential",
    "RotateSipCredentialInput",
    "Mutation.revokeSipCredential",
    "RevokeSipCredentialInput",
    "SipCredentialSecretPayload",
    "RevokeSipCredentialPayload",
    // callbacks
    "Mutation.placeCall",
    "PlaceCallInput",
    "PlaceCallPayload",
    // payments
    "Mutation.topUp",
    "TopUpInput",
    "TopUpPayload",
    "TopUpStatus",
    "TopUp",
    "TopUpChanged",
];

/// Every name of a schema with its signature: `Call.cost` is `Money!`, `CallMode.CALLBACK` a value, and so on.
fn signatures(text: &str) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    for definition in parse_schema(text).expect("a schema").definitions {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        let definition = definition.node;
        let name = definition.name.node.to_string();
        let kind = match definition.kind {
            TypeKind::Scalar => "scalar".to_owned(),
            TypeKind::Object(object) => {
                let implements: BTreeSet<_> = object.implements.iter().map(|i| i.node.to_string()).collect();
                all.extend(object.fields.iter().map(|f| field(&name, &f.node)));
                format!("type implements {implements:?}")
            }
            TypeKind::Interface(interface) => {
                all.extend(interface.fields.iter().map(|f| field(&name, &f.node)));
                "interface".to_owned()
            }
            TypeKind::Union(_) => "union".to_owned(),
            TypeKind::Enum(values) => {
                all.extend(values.values.iter().map(|v| (format!("{name}.{}", v.node.value.node), "value".to_owned())));
                "enum".to_owned()
            }
            TypeKind::InputObject(input) => {
                all.extend(input.fields.iter().map(|f| (format!("{name}.{}", f.node.name.node), argument(&f.node))));
                let is_one_of = definition.directives.iter().any(|d| d.node.name.node == "oneOf");
                format!("input, one of: {is_one_of}")
            }
        };
        all.insert(name, kind);
    }
    all
}

fn field(owner: &str, field: &FieldDefinition) -> (String, String) {
    let arguments: BTreeMap<_, _> =
        field.arguments.iter().map(|a| (a.node.name.node.to_string(), argument(&a.node))).collect();
    (format!("{owner}.{}", field.name.node), format!("{arguments:?} -> {}", field.ty.node))
}

fn argument(value: &InputValueDefinition) -> String {
    let default = value.default_value.as_ref().map(|v| format!(" = {}", v.node)).unwrap_or_default();
    format!("{}{default}", value.ty.node)
}

fn is_not_yet(name: &str) -> bool {
    let owner = name.split('.').next().unwrap_or(name);
    NOT_YET_IN_THE_API.contains(&name) || NOT_YET_IN_THE_API.contains(&owner)
}

#[test]
fn everything_of_the_contract_that_is_built_keeps_its_signature() {
    let (contract, ours) = (signatures(include_str!("contract.graphql")), signatures(&graphql::schema_sdl()));
    let mut wrong = Vec::new();
    for (name, signature) in contract.iter().filter(|(name, _)| !is_not_yet(name)) {
        match ours.get(name) {
            None => wrong.push(format!("{name} is missing ({signature})")),
            Some(found) if found != signature => wrong.push(format!("{name}: {found}, agreed is {signature}")),
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for name in NOT_YET_IN_THE_API {
        assert!(contract.contains_key(*name), "{name} is not in the contract");
        assert!(!ours.contains_key(*name), "{name} exists: take it off the list");
    }
}

#[test]
fn the_checked_in_schema_is_what_the_code_gives() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../schema/schema.graphql");
    let given = graphql::schema_sdl();
    let checked_in = std::fs::read_to_string(&path).expect("schema/schema.graphql");
    let differs = given.lines().zip(checked_in.lines()).position(|(a, b)| a != b);
    assert!(
        checked_in == given,
        "schema/schema.graphql differs from the code, first in line {}: refresh it with `just sdl`",
        differs.map_or_else(|| given.lines().count().min(checked_in.lines().count()) + 1, |n| n + 1)
    );
}

#[test]
fn every_type_and_field_is_described() {
    let text = graphql::schema_sdl();
    let mut bare = Vec::new();
    for definition in parse_schema(&text).expect("a schema").definitions {
        let TypeSystemDefinition::Type(definition) = definition else { continue };
        if definition.node.description.is_none() {
            bare.push(definition.node.name.node.to_string());
        }
    }
    assert!(bare.is_empty(), "types without a description: {bare:?}");
}
