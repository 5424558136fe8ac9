# Work for Perl: hashes, strings, patterns, sorting, nested data. Argument: rounds.
use strict;
use warnings;

my $total = 0;
for my $round (1 .. $ARGV[0]) {
    my %count;
    my $text = join ' ', map { 'w' . ($_ * 7919 % 2003) . 'x' x ($_ % 11) } 1 .. 12000;
    $count{$_}++ for split / /, $text;
    for my $word (sort { $count{$b} <=> $count{$a} || $a cmp $b } keys %count) {
        $total = ($total * 31 + $count{$word} * length $word) % 1000003;
    }
    my @records = map { { id => $_, name => "name $_", list => [ 1 .. $_ % 9 ] } } 1 .. 6000;
    $total = ($total + $_->{id} * @{ $_->{list} }) % 1000003 for @records;
    (my $copy = $text) =~ s/(\d+)x+/<$1>/g;
    $total = ($total + length $copy) % 1000003;
    my $grown = '';
    $grown .= chr(97 + $_ % 26) x ($_ % 5) for 1 .. 8000;
    $total = ($total + length($grown) + ($grown =~ tr/a//)) % 1000003;
}
print "perl total $total\n";
