# An overlay for nixpkgs: put this file beside what `byssal dist --default --musl VERSION` wrote for
# the musl of nixpkgs, named byssal.patch.
final: prev: {
  musl = prev.musl.overrideAttrs (old: {
    patches = (old.patches or [ ]) ++ [ ./byssal.patch ];
  });
}
