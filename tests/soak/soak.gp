# Draws a soak over time: the small requests' latency, and what the server held. tests/soak/soak.py runs it:
#   gnuplot -e "table='build/soak/intervals.tsv'; out='build/soak/soak.png'; rate='5000'" tests/soak/soak.gp
set terminal pngcairo size 1000,800 font 'sans,11'
set output out
set multiplot layout 2,1 \
    title sprintf('gzip\_server at 80%% of its capacity (%s requests/s), threads stopped, clients that abort', rate)
set datafile separator "\t"
set grid
set style line 1 linewidth 2 pointtype 7 pointsize 0.5
set key outside top center horizontal
set lmargin 12
set rmargin 10
set ylabel 'small requests, ms'
set logscale y
set format y '%g'
plot table using 2:6 with linespoints linestyle 1 linecolor rgb '#c0392b' title 'p99', \
     table using 2:7 with lines linewidth 1 linecolor rgb '#e0a030' title 'p99.9', \
     table using 2:($13 == 0 ? $6 : 1 / 0) with points pointtype 6 pointsize 2 linewidth 2 linecolor rgb '#c0392b' \
         title 'p99 without stops', \
     table using 2:5 with linespoints linestyle 1 linecolor rgb '#2471a3' title 'p50'
unset logscale y
set xlabel 'seconds since the start; a point for each round'
set ylabel 'resident memory, MB'
set y2label 'open fds'
set ytics nomirror
set y2tics
set yrange [0:*]
set y2range [0:*]
plot table using 2:($9 / 1024) with linespoints linestyle 1 linecolor rgb '#2471a3' title 'memory, clients gone', \
     table using 2:($10 / 1024) with lines linewidth 1 linecolor rgb '#2471a3' dashtype 2 title 'its peak', \
     table using 2:11 axes x1y2 with linespoints linestyle 1 linecolor rgb '#2c8f4a' title 'fds, clients gone', \
     table using 2:12 axes x1y2 with lines linewidth 1 linecolor rgb '#2c8f4a' dashtype 2 title 'their peak'
