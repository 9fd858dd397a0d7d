# R data sets and simulated designs -> data/*.csv.gz, plain columns that Python and R read alike.
#
# Usage: Rscript export_data.R [directory of the CSV files shipped in the package]
# Numbers are written with as many digits as it takes to read the same double back. Ordered
# factors become strings; the order of levels is stated in models.json. Column names with dots are
# renamed (IQ.ver.cen -> IQ_ver_cen). Simulated data use fixed seeds and are rounded.

suppressPackageStartupMessages({
  library(nlme)
  library(mlmRev)
})

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))
shipped <- commandArgs(trailingOnly = TRUE)
shipped <- if (length(shipped)) shipped[1] else file.path(here, "..", "lmmsparse", "data")

digits_that_round_trip <- function(x) {
  out <- sprintf("%.15g", x)
  longer <- !is.na(x) & as.numeric(out) != x
  out[longer] <- sprintf("%.17g", x[longer])
  out[is.na(x)] <- ""
  out
}

plain <- function(column) {
  if (is.factor(column)) as.character(column)
  else if (is.double(column)) digits_that_round_trip(column)
  else as.character(column)
}

export <- function(data, name) {
  text <- as.data.frame(lapply(as.data.frame(data), plain), stringsAsFactors = FALSE)
  con <- gzfile(file.path(here, "data", paste0(name, ".csv.gz")), "wb", compression = 9)
  on.exit(close(con))
  writeLines(paste(names(data), collapse = ","), con)
  writeLines(do.call(paste, c(unname(text), sep = ",")), con)
}

read_shipped <- function(name) {
  path <- file.path(shipped, paste0(name, c(".csv.gz", ".csv")))
  read.csv(path[file.exists(path)][1], stringsAsFactors = FALSE)
}

from <- function(package, name, columns) {
  data <- as.data.frame(get(data(list = name, package = package, envir = environment())))
  data <- data[, columns]
  names(data) <- gsub(".", "_", names(data), fixed = TRUE)
  data
}

# Data sets of nlme and mlmRev --------------------------------------------------------------------
export(from("nlme", "ergoStool", c("effort", "Type", "Subject")), "ergoStool")
export(from("nlme", "Orthodont", c("distance", "age", "Subject", "Sex")), "Orthodont")
mares <- from("nlme", "Ovary", c("Mare", "Time", "follicles"))
mares$occasion <- ave(seq_along(mares$Mare), mares$Mare, FUN = seq_along)
export(mares, "Ovary")
export(from("nlme", "BodyWeight", c("weight", "Time", "Rat", "Diet")), "BodyWeight")
oats <- from("nlme", "Oats", c("Block", "Variety", "nitro", "yield"))
export(oats, "Oats")
export(oats[-c(3, 10, 27, 44, 45), ], "Oats_unbalanced")
machines <- from("nlme", "Machines", c("Worker", "Machine", "score"))
machines$w <- 0.5 + (seq_len(nrow(machines)) - 1) %% 7 / 4
export(machines, "Machines")
export(from("nlme", "Pixel", c("Dog", "Side", "day", "pixel")), "Pixel")
export(from("nlme", "Oxide", c("Lot", "Wafer", "Thickness")), "Oxide")
export(from("nlme", "bdf", c("schoolNR", "langPOST", "IQ.ver.cen", "avg.IQ.ver.cen")), "bdf")
export(from("mlmRev", "ScotsSec", c("attain", "verbal", "sex", "primary", "second")), "ScotsSec")
export(from("mlmRev", "Exam", c("normexam", "standLRT", "sex", "school")), "Exam")
export(from("mlmRev", "Hsb82", c("mAch", "meanses", "cses", "sector", "school")), "Hsb82")
early <- from("mlmRev", "Early", c("id", "cog", "age", "trt"))
early$tos <- early$age - 0.5 # time on study
export(early[, c("id", "cog", "tos", "trt")], "Early")
export(from("mlmRev", "egsingle", c("math", "year", "size", "female", "childid", "schoolid")),
       "egsingle")
export(from("mlmRev", "Chem97", c("score", "gcsecnt", "school", "lea")), "Chem97")
star <- from("mlmRev", "star", c("math", "gr", "cltype", "sx", "id", "tch", "sch"))
export(star, "star") # math is missing in some rows, on purpose

# Copies of shipped data with weights, offsets and awkward predictors -------------------------------
weights_of <- function(n) 0.5 + (seq_len(n) - 1) %% 7 / 4
sleep <- read_shipped("sleepstudy")
sleep$w <- weights_of(nrow(sleep))
sleep$off <- 3 * sleep$Days + (seq_len(nrow(sleep)) - 1) %% 5
sleep$micro <- 5e6 + 1e6 * sleep$Days # the same days, badly scaled and far from zero
sleep$twice <- 2 * sleep$Days         # collinear with Days
export(sleep, "sleepstudy_w")
penicillin <- read_shipped("Penicillin")
penicillin$w <- weights_of(nrow(penicillin))
penicillin$off <- (seq_len(nrow(penicillin)) - 1) %% 3 / 2
export(penicillin, "Penicillin_w")
pastes <- read_shipped("Pastes")[, c("strength", "batch", "cask")]
pastes$w <- weights_of(nrow(pastes))
export(pastes, "Pastes_w")

# Simulated designs ---------------------------------------------------------------------------------
RNGkind("Mersenne-Twister", "Inversion", "Rejection")

# Subjects x items, every pair in one cell of a 2 x 2 design (rotated), factors coded -0.5 / 0.5.
crossed <- function(seed, sd_subject, sd_item, loadings = NULL, n_subject = 45, n_item = 40) {
  set.seed(seed)
  draw <- function(n, sd) {
    k <- length(sd)
    if (is.null(loadings)) {
      correlation <- 0.3 ^ abs(outer(seq_len(k), seq_len(k), "-"))
      root <- t(chol(correlation))
    } else root <- loadings
    t(sd * (root %*% matrix(rnorm(ncol(root) * n), ncol(root))))
  }
  d <- expand.grid(item = seq_len(n_item), subj = seq_len(n_subject))[, 2:1]
  cell <- (d$subj + d$item) %% 4
  d$A <- ifelse(cell < 2, -0.5, 0.5)
  d$B <- ifelse(cell %% 2 == 0, -0.5, 0.5)
  M <- model.matrix(~ A * B, d)
  b <- draw(n_subject, sd_subject)
  c <- draw(n_item, sd_item)
  mean <- drop(M %*% c(500, 30, -20, 10))
  d$rt <- round(mean + rowSums(M * b[d$subj, ]) + rowSums(M * c[d$item, ]) +
                  rnorm(nrow(d), sd = 60), 2)
  d$subj <- sprintf("S%02d", d$subj)
  d$item <- sprintf("I%02d", d$item)
  d
}
export(crossed(20140, c(60, 40, 35, 50), c(40, 35, 30, 45)), "psycho")
one_factor <- cbind(c(1, 0.8, -0.6, 0.5), c(0, 0.3, 0.4, -0.2)) # covariances of rank two
export(crossed(20141, c(60, 25, 20, 20), c(40, 15, 12, 12), loadings = one_factor),
       "psycho_singular")

# Three nested levels whose labels repeat, unbalanced.
set.seed(20142)
nested <- expand.grid(rep = 1:4, c = 1:3, b = letters[1:4], a = LETTERS[1:7],
                      stringsAsFactors = FALSE)
nested <- nested[-sample(nrow(nested), 40), ]
cell <- function(sd, ...) {
  key <- paste(...)
  effect <- rnorm(length(unique(key)), sd = sd)
  effect[match(key, unique(key))]
}
nested$x <- round(rnorm(nrow(nested)), 3)
nested$f <- c("lo", "mid", "hi")[sample(3, nrow(nested), replace = TRUE)]
slope <- cell(0.8, nested$a)
nested$y <- round(5 + (1.5 + slope) * nested$x + 0.7 * (nested$f == "hi") +
                    cell(2, nested$a) + cell(1.5, nested$a, nested$b) +
                    cell(1, nested$a, nested$b, nested$c) + rnorm(nrow(nested)), 4)
export(nested[, c("y", "x", "f", "a", "b", "c")], "nested3")

# Three groupings with equal numbers of levels, the case in which term orders differ.
set.seed(20143)
ties <- data.frame(g1 = sample(sprintf("u%d", 1:6), 150, replace = TRUE),
                   g2 = sample(sprintf("v%d", 1:6), 150, replace = TRUE),
                   g3 = sample(sprintf("w%d", 1:6), 150, replace = TRUE))
ties$x <- round(runif(150, -2, 2), 3)
ties$y <- round(1 + 2 * ties$x + cell(1, ties$g1) + cell(1.5, ties$g2) + cell(2, ties$g3) +
                  cell(0.7, ties$g2) * ties$x + rnorm(150), 4)
export(ties, "ties")

# Eight rows.
tiny <- data.frame(g = c("a", "a", "a", "b", "b", "b", "c", "c"),
                   x = c(1, 2, 3, 1, 2, 4, 2, 3),
                   y = c(3.1, 4.2, 4.8, 6.0, 7.3, 9.1, 2.2, 3.0))
export(tiny, "tiny")
