//! `#[derive(Transfer)]`: a struct travels field by field.
//!
//! What lies in a slot is a pair of the first field's wire and the rest, and so on to the last.
//! Each method does to every field in turn what it does to the struct.

use proc_macro2::{Ident, Span, TokenStream};
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{Data, DataStruct, DeriveInput, Error, Result, Type};

use super::{at, member, path_of_offspring};

pub(super) fn expand(input: &DeriveInput) -> Result<TokenStream> {
    let Data::Struct(DataStruct { fields, .. }) = &input.data else {
        let message = "only a struct can be `Transfer`: send an enum through an \
                       `offspring::channel`, or a struct for each variant through a queue of its own";
        return Err(Error::new(input.ident.span(), message));
    };
    let offspring = path_of_offspring(&input.attrs, "transfer")?;
    let name = &input.ident;
    let types: Vec<&Type> = fields.iter().map(|field| &field.ty).collect();
    let members: Vec<_> = (fields.iter().enumerate())
        .map(|(index, field)| member(index, field.ident.as_ref()).0)
        .collect();
    // Names that the user's constants cannot be.
    let own = |name: &str| Ident::new(name, Span::mixed_site());
    let wires: Vec<Ident> =
        (0..types.len()).map(|index| own(&format_ident!("wire{index}").to_string())).collect();
    let (departure, arrival, wire) = (own("departure"), own("arrival"), own("wire"));

    let pair =
        |first: TokenStream, rest: TokenStream| quote!(#offspring::__private::Pair(#first, #rest));
    let wire_type = types.iter().rev().fold(
        quote!(()),
        |rest, ty| quote!(#offspring::__private::Pair<<#ty as #offspring::Transfer>::Wire, #rest>),
    );
    let pattern = wires.iter().rev().fold(quote!(()), |rest, wire| pair(quote!(#wire), rest));
    let value = pattern.clone();
    let bounds = types.iter().map(|ty| quote_spanned!(at(ty.span())=> #ty: #offspring::Transfer));

    let mut generics = input.generics.clone();
    let clause = generics.make_where_clause();
    for bound in bounds {
        clause.predicates.push(syn::parse2(bound)?);
    }
    let (impl_generics, type_generics, where_clause) = generics.split_for_impl();
    Ok(quote! {
        // A value that was sent is dropped, and owns nothing then: it must have no `Drop` of its
        // own that would use what it owned. For such a struct these two overlap.
        const _: () = {
            trait HasNoDrop {}
            #[allow(drop_bounds, reason = "finds out whether there is one")]
            impl<__T: ::core::ops::Drop> HasNoDrop for __T {}
            impl #impl_generics HasNoDrop for #name #type_generics #where_clause {}
        };
        #[automatically_derived]
        unsafe impl #impl_generics #offspring::Transfer for #name #type_generics #where_clause {
            type Wire = #wire_type;

            fn pack(
                &mut self,
                #departure: &#offspring::__private::Departure<'_>,
            ) -> ::core::result::Result<Self::Wire, #offspring::Fault> {
                #(let #wires = <#types as #offspring::Transfer>::pack(&mut self.#members, #departure)?;)*
                ::core::result::Result::Ok(#value)
            }

            fn restore(&mut self) {
                #(<#types as #offspring::Transfer>::restore(&mut self.#members);)*
            }

            fn unpack(
                #wire: Self::Wire,
                #arrival: &#offspring::__private::Arrival<'_>,
            ) -> ::core::result::Result<Self, #offspring::Fault> {
                let #pattern = #wire;
                ::core::result::Result::Ok(Self {
                    #(#members: <#types as #offspring::Transfer>::unpack(#wires, #arrival)?,)*
                })
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use syn::parse_quote;

    #[test]
    fn what_is_no_struct_is_refused() {
        for input in [
            parse_quote!(
                enum E {
                    A,
                }
            ),
            parse_quote!(
                union U {
                    a: u8,
                }
            ),
        ] {
            let refusal = expand(&input).expect_err("nothing is derived").to_string();
            assert!(refusal.starts_with("only a struct can be `Transfer`"), "{refusal}");
        }
    }

    #[test]
    fn structs_of_every_form_travel() {
        for input in [
            parse_quote!(
                struct S;
            ),
            parse_quote!(
                struct S(u8, ShmStr);
            ),
            parse_quote!(
                #[transfer(crate = other)]
                struct S<T, const N: usize>
                where
                    T: Shm,
                {
                    values: ShmBox<[T]>,
                    numbers: [u8; N],
                }
            ),
        ] {
            let code = expand(&input).expect("it is derived").to_string();
            syn::parse_str::<syn::File>(&code).expect("code");
        }
    }
}
