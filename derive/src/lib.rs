//! `#[derive(Transfer)]`: field by field, in `transfer`. `#[derive(Shm)]`: checks that values of a
//! struct may be stored in shared memory.
//!
//! Used through `offspring`, which exports the macro under the name of its trait. Every
//! `bytemuck::Pod` type is `Shm`, so the macro derives `Pod` and `Zeroable`. It also generates
//! proof of what these traits promise:
//!
//! | promise | proof |
//! |---|---|
//! | any bytes are a valid value; no pointers | each field's type is `Shm` |
//! | the order of the fields is fixed | `repr(C)` or `repr(transparent)` |
//! | no padding | constants that the compiler evaluates: each field begins where the one before it ends, and the struct ends with the last |
//! | `Copy`, `'static`, `Send` | bounds of the traits |

mod transfer;

use proc_macro2::{Span, TokenStream};
use quote::{quote, quote_spanned};
use syn::ext::IdentExt;
use syn::spanned::Spanned;
use syn::{
    Attribute, Data, DataStruct, DeriveInput, Error, Fields, GenericParam, Generics, Ident, Index,
    Member, Path, Result, Token, Type, parse_quote, token,
};

/// Implements [`Shm`](https://docs.rs/offspring/latest/offspring/trait.Shm.html) for a struct, by
/// deriving `Pod` and `Zeroable`.
#[proc_macro_derive(Shm, attributes(shm))]
pub fn derive_shm(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

/// Implements [`Transfer`](https://docs.rs/offspring/latest/offspring/trait.Transfer.html) for a
/// struct whose fields all do.
#[proc_macro_derive(Transfer, attributes(transfer))]
pub fn derive_transfer(input: proc_macro::TokenStream) -> proc_macro::TokenStream {
    let input = syn::parse_macro_input!(input as DeriveInput);
    transfer::expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let DataStruct { fields, .. } = the_struct(input)?;
    let representation = representation(input)?;
    refuse_parameters(&input.generics, representation)?;
    let offspring = path_of_offspring(&input.attrs, "shm")?;
    for attribute in fields.iter().flat_map(|field| &field.attrs) {
        if attribute.path().is_ident("shm") {
            return Err(Error::new_spanned(attribute, "`shm` belongs to the struct, not a field"));
        }
    }

    let proof = match representation {
        Representation::C => layout(input, fields, &offspring),
        Representation::Transparent => members(input, fields, &offspring),
    };
    let name = &input.ident;
    let generics = bounded(&input.generics, &offspring);
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        #proof
        #[automatically_derived]
        unsafe impl #impl_generics #offspring::bytemuck::Zeroable
            for #name #type_generics #where_clause {}
        #[automatically_derived]
        unsafe impl #impl_generics #offspring::bytemuck::Pod
            for #name #type_generics #where_clause {}
    })
}

fn the_struct(input: &DeriveInput) -> Result<&DataStruct> {
    match &input.data {
        Data::Struct(data) => Ok(data),
        Data::Enum(data) => Err(Error::new(
            data.enum_token.span(),
            "an enum cannot be `Shm`: a process that is killed in the middle of writing may leave \
             a number that names no variant; send an integer, and check it when it is received",
        )),
        Data::Union(data) => Err(Error::new(
            data.union_token.span(),
            "a union cannot be `Shm`: nothing says which of its fields is there; send a struct of \
             integers or of bytes",
        )),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Representation {
    C,
    Transparent,
}

fn representation(input: &DeriveInput) -> Result<Representation> {
    let mut found = None;
    for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("C") {
                found = Some(Representation::C);
            } else if meta.path.is_ident("transparent") {
                found = Some(Representation::Transparent);
            }
            // Skip the number in `align(8)` or `packed(2)`; the proof of the layout covers it.
            if meta.input.peek(token::Paren) {
                let number;
                syn::parenthesized!(number in meta.input);
                number.parse::<TokenStream>()?;
            }
            Ok(())
        })?;
    }
    found.ok_or_else(|| {
        let name = &input.ident;
        let message = format!(
            "`{name}` needs `#[repr(C)]`: without it the compiler may order the fields in another \
             way in each program"
        );
        Error::new(name.span(), message)
    })
}

/// Refuses generic parameters with which the layout is not known yet and so cannot be proven.
fn refuse_parameters(generics: &Generics, representation: Representation) -> Result<()> {
    for parameter in &generics.params {
        if let GenericParam::Lifetime(lifetime) = parameter {
            return Err(Error::new_spanned(
                lifetime,
                "a struct with references cannot be `Shm`: an address means nothing in another \
                 process; own the bytes in an array of fixed length, or in a `String` or a `Vec` \
                 and send the struct through an `offspring::channel`",
            ));
        }
        if representation == Representation::C {
            return Err(Error::new_spanned(
                parameter,
                "a generic struct can be `Shm` only with `#[repr(transparent)]`, around one field: \
                 whether a `#[repr(C)]` one has padding depends on its parameters",
            ));
        }
    }
    Ok(())
}

/// Returns the path in `#[shm(crate = path)]`, or in an attribute of another `name`; or the
/// default, `::offspring`.
fn path_of_offspring(attributes: &[Attribute], name: &str) -> Result<Path> {
    let mut path = parse_quote!(::offspring);
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident(name)) {
        attribute.parse_nested_meta(|meta| {
            if !meta.path.is_ident("crate") {
                return Err(meta.error("the one option is `crate = path`"));
            }
            path = meta.value()?.parse()?;
            Ok(())
        })?;
    }
    Ok(path)
}

/// Generates proof that each field is `Shm`, and that there is no padding between fields or after
/// the last.
///
/// It defines no names, because a type of a field may contain any constant of the user's, which
/// such a name would hide.
fn layout(input: &DeriveInput, fields: &Fields, offspring: &Path) -> TokenStream {
    let name = &input.ident;
    let help = "put larger fields first, or fill the gap by a field of bytes";
    // This variable and the user's constants cannot refer to each other.
    let end = Ident::new("end", Span::mixed_site());
    let mut proof = quote!(let mut #end = 0;);
    let mut last = name.span();
    for (index, field) in fields.iter().enumerate() {
        let (member, shown) = member(index, field.ident.as_ref());
        let message = format!("`{name}` has padding before its field `{shown}`: {help}");
        let size = size(&field.ty, offspring);
        last = field.ident.as_ref().map_or_else(|| field.ty.span(), Ident::span);
        proof.extend(quote_spanned! {at(last)=>
            ::core::assert!(::core::mem::offset_of!(#name, #member) == #end, #message);
        });
        proof.extend(quote!(#end += #size;));
    }
    let message = format!("`{name}` has padding after its last field: {help}");
    let ends = quote_spanned! {at(last)=>
        ::core::assert!(::core::mem::size_of::<#name>() == #end, #message);
    };
    quote!(const _: () = { #proof #ends };)
}

/// Generates proof that each field is `Shm`. The compiler checks that a transparent struct has no
/// padding.
fn members(input: &DeriveInput, fields: &Fields, offspring: &Path) -> TokenStream {
    let generics = bounded(&input.generics, offspring);
    let (impl_generics, _, where_clause) = generics.split_for_impl();
    let sizes = fields.iter().map(|field| size(&field.ty, offspring));
    quote! {
        const _: () = {
            const fn __offspring_members #impl_generics () #where_clause { #(#sizes;)* }
        };
    }
}

/// Generates the size of a field, which compiles only if the field is `Shm`. An error points to the
/// field's type.
fn size(of: &Type, offspring: &Path) -> TokenStream {
    quote_spanned!(at(of.span())=> #offspring::__private::size_of_shm::<#of>())
}

fn member(index: usize, name: Option<&Ident>) -> (Member, String) {
    match name {
        Some(name) => (name.clone().into(), name.unraw().to_string()),
        None => (Index::from(index).into(), index.to_string()),
    }
}

/// The place of `span`, but for code of the macro, so that lints such as `unsafe_code` and
/// suggestions for that code are not shown to the user.
fn at(span: Span) -> Span {
    span.resolved_at(Span::call_site())
}

/// The generic parameters, with the bounds that type parameters need for the fields to be `Shm`.
fn bounded(generics: &Generics, offspring: &Path) -> Generics {
    let mut generics = generics.clone();
    for parameter in generics.type_params_mut() {
        parameter.colon_token.get_or_insert_with(<Token![:]>::default);
        parameter.bounds.push(parse_quote!(#offspring::bytemuck::Pod));
        parameter.bounds.push(parse_quote!(::core::marker::Send));
    }
    generics
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(input: DeriveInput) -> String {
        expand(&input).expect_err("nothing is derived").to_string()
    }

    #[test]
    fn the_representation_is_found_among_others() {
        for (input, expected) in [
            (
                parse_quote!(
                    #[repr(C)]
                    struct S;
                ),
                Representation::C,
            ),
            (
                parse_quote!(
                    #[repr(align(8), C)]
                    struct S;
                ),
                Representation::C,
            ),
            (
                parse_quote!(
                    #[repr(C, packed(2))]
                    struct S;
                ),
                Representation::C,
            ),
            (
                parse_quote!(
                    #[repr(align(8))]
                    #[repr(C)]
                    struct S;
                ),
                Representation::C,
            ),
            (
                parse_quote!(
                    #[repr(transparent)]
                    struct S(u8);
                ),
                Representation::Transparent,
            ),
        ] {
            assert_eq!(representation(&input).unwrap(), expected);
        }
    }

    #[test]
    fn an_order_of_fields_that_is_not_fixed_is_refused() {
        for input in [
            parse_quote!(
                struct S(u8);
            ),
            parse_quote!(
                #[repr(packed)]
                struct S(u8);
            ),
            parse_quote!(
                #[repr(align(8))]
                struct S(u64);
            ),
            parse_quote!(
                #[repr(Rust)]
                struct S(u8);
            ),
        ] {
            assert!(refusal(input).starts_with("`S` needs `#[repr(C)]`"));
        }
    }

    #[test]
    fn parameters_are_refused_where_the_layout_depends_on_them() {
        let generic = "a generic struct can be `Shm` only with `#[repr(transparent)]`";
        assert!(
            refusal(parse_quote!(
                #[repr(C)]
                struct S<T>(T, T);
            ))
            .starts_with(generic)
        );
        assert!(
            refusal(parse_quote!(
                #[repr(C)]
                struct S<const N: usize>([u8; N]);
            ))
            .starts_with(generic)
        );
        let references = "a struct with references cannot be `Shm`";
        let borrowing = parse_quote!(
            #[repr(transparent)]
            struct S<'a>(&'a u8);
        );
        assert!(refusal(borrowing).starts_with(references));
        let transparent = parse_quote!(
            #[repr(transparent)]
            struct S<T, const N: usize>([T; N]);
        );
        assert!(expand(&transparent).is_ok());
    }

    #[test]
    fn an_unknown_option_is_refused() {
        let unknown = parse_quote!(
            #[repr(C)]
            #[shm(skip)]
            struct S(u8);
        );
        assert_eq!(refusal(unknown), "the one option is `crate = path`");
        let of_a_field = parse_quote!(
            #[repr(C)]
            struct S(#[shm(skip)] u8);
        );
        assert_eq!(refusal(of_a_field), "`shm` belongs to the struct, not a field");
    }
}
