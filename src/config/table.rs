//! What makes a section of members.

/// A table of settings, none of which need be there.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident { $($(#[$field_meta:meta])* $field:ident: $ty:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[non_exhaustive]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(skip_serializing_if = "Option::is_none")]
                pub $field: Option<$ty>,
            )+
        }

        impl $name {
            /// The names of all members.
            pub const MEMBERS: &'static [&'static str] = &[$(stringify!($field)),+];

            /// Reads the variables of this section.
            #[allow(dead_code, reason = "tables within a section have no variables of their own")]
            pub(super) fn from_env(
                section: &str,
                get: &mut dyn FnMut(&str) -> Option<String>,
            ) -> Result<Self, crate::config::EnvError> {
                let mut all = Self::default();
                $(
                    let name = crate::config::env::variable(section, stringify!($field));
                    if let Some(text) = get(&name) {
                        let value = <$ty>::deserialize(crate::config::env::EnvValue(text.trim()));
                        all.$field = Some(value.map_err(|error| crate::config::EnvError::new(&name, error.to_string()))?);
                    }
                )+
                Ok(all)
            }

            fn over_each(self, base: Self) -> Self {
                Self { $($field: crate::config::values::over(self.$field, base.$field),)+ }
            }
        }
    };
}

/// The same, where each member is laid over by itself.
macro_rules! plain_table {
    ($(#[$meta:meta])* $name:ident { $($rest:tt)+ }) => {
        table!($(#[$meta])* $name { $($rest)+ });

        impl crate::config::values::Over for $name {
            fn over(self, base: Self) -> Self {
                self.over_each(base)
            }
        }
    };
}

/// Hands members on to the builder's methods of the same name.
macro_rules! apply {
    ($builder:ident, $all:ident: $($field:ident)+) => {
        $(if let Some(value) = $all.$field {
            $builder = $builder.$field(value.into());
        })+
    };
}
