# Draws the small requests' latency against the share of requests that were slower. tools/demo.sh runs it:
#   gnuplot -e "dir='build/demo/raw'; out='build/demo/latency.png'; rate='5000'" tools/latency.gp
set terminal pngcairo size 1000,600 font 'sans,11'
set output out
set title sprintf('Small requests while 1%% of all ask for 1 to 10 MB, compressed on the fly (%s requests/s, server on one core)', rate)
set xlabel 'share of the small requests that were answered within that time'
set ylabel 'latency from the intended send time'
set logscale xy
set xrange [1:*]
set xtics ('0%%' 1, '50%%' 2, '90%%' 10, '99%%' 100, '99.9%%' 1000, '99.99%%' 10000)
set ytics ('10 us' 10, '100 us' 100, '1 ms' 1000, '10 ms' 10000, '100 ms' 100000, '1 s' 1000000)
set grid
set key bottom right
set rmargin 5
plot dir.'/plot.whole' using (1/$1):2 with lines linewidth 3 linecolor rgb '#c0392b' title 'naive: whole file on the loop', \
     dir.'/plot.chunks' using (1/$1):2 with lines linewidth 3 linecolor rgb '#e0a030' title 'careful: chunks on the loop', \
     dir.'/plot.offload' using (1/$1):2 with lines linewidth 3 linecolor rgb '#2471a3' title 'offloaded', \
     dir.'/plot.alone' using (1/$1):2 with lines linewidth 2 dashtype 2 linecolor rgb '#808080' title 'offloaded, no big requests'
