"""The table as a picture: a bar a figure, each relative to its goal or its best peer (gnuplot)."""
import shutil
import subprocess


def draw(rows, path):
    """False when there is nothing to draw, or nothing to draw with."""
    drawable = [row for row in rows if row.mayfly and any(v for v in (row.firecracker, row.qemu, row.goal))]
    if not drawable or shutil.which("gnuplot") is None:
        return False
    lines = []
    for row in drawable:
        # Logarithmic: the peers are up to a hundred times away.
        values = [row.mayfly, row.firecracker or "NaN", row.qemu or "NaN", row.goal or "NaN"]
        lines.append(f'"{row.what} ({row.unit})" ' + " ".join(str(v) for v in values))
    data = "\n".join(lines)
    script = f"""
set terminal svg size 1100,{120 + 90 * len(drawable)} font "sans,13" background "white"
set output "{path}"
set title "Mayfly beside its peers: shorter is better"
$rows << EOD
{data}
EOD
set logscale x
set grid xtics lc rgb "#dddddd"
set yrange [{len(drawable) - 0.4}:-0.6]
set lmargin 52
set key outside bottom center horizontal
set style fill solid 0.9 noborder
set boxwidth 0.2
unset ytics
set for [i=0:{len(drawable) - 1}] label i+1 word($rows[i+1], 1) at graph -0.01, first i right
h = 0.1
plot $rows using (0.001):($0-0.25):(0.001):2:($0-0.25-h):($0-0.25+h) with boxxyerror lc rgb "#2a9d8f" title "mayfly", \\
     $rows using (0.001):($0-0.02):(0.001):3:($0-0.02-h):($0-0.02+h) with boxxyerror lc rgb "#e76f51" title "firecracker", \\
     $rows using (0.001):($0+0.2):(0.001):4:($0+0.2-h):($0+0.2+h) with boxxyerror lc rgb "#8d99ae" title "qemu microvm", \\
     $rows using 5:0 with points pt 9 ps 1.2 lc rgb "#222222" title "goal"
"""
    # Quoted first words hold spaces: gnuplot's word() keeps them together.
    subprocess.run(["gnuplot"], input=script, text=True, check=True)
    return True
