# Data -> reference_robust.json: cluster-robust covariances and tests by clubSandwich.
#
# Usage: OPENBLAS_NUM_THREADS=1 Rscript robust_reference.R
# θ is lme4's, rounded to three decimals, and held: both sides then do the same arithmetic.

suppressPackageStartupMessages({
  library(lme4)
  library(clubSandwich)
  library(jsonlite)
})
options(contrasts = c("contr.treatment", "contr.treatment"))

args <- commandArgs(trailingOnly = FALSE)
here <- dirname(normalizePath(sub("^--file=", "", grep("^--file=", args, value = TRUE))))
shipped <- file.path(here, "..", "lmmsparse", "data")

read <- function(name, factors) {
  path <- c(file.path(shipped, paste0(name, c(".csv.gz", ".csv"))),
            file.path(here, "data", paste0(name, ".csv.gz")))
  data <- read.csv(path[file.exists(path)][1], stringsAsFactors = FALSE, check.names = FALSE)
  for (column in factors) data[[column]] <- factor(data[[column]])
  data
}

model <- function(name, data, formula, factors, cluster, reml = TRUE, rows = NULL)
  list(name = name, data = data, formula = formula, factors = as.list(factors), cluster = cluster,
       reml = reml, rows = rows)

models <- list(
  model("sleepstudy", "sleepstudy", "Reaction ~ Days + (Days | Subject)", "Subject", "Subject"),
  # every third row of the first half: unbalanced
  model("sleepstudy_unbalanced", "sleepstudy", "Reaction ~ Days + I(Days^2) + (Days | Subject)",
        "Subject", "Subject", rows = c(seq(1, 90, 3), 91:180)),
  model("orthodont", "Orthodont", "distance ~ age * Sex + (age | Subject)", c("Subject", "Sex"),
        "Subject", reml = FALSE),
  model("dietox", "dietox", "Weight ~ Time + Cu + (Time | Pig)", c("Pig", "Cu"), "Pig"),
  model("dietox_litter", "dietox", "Weight ~ Time * Cu + (1 | Litter) + (Time | Pig)",
        c("Pig", "Cu", "Litter"), "Litter"),
  model("pastes", "Pastes", "strength ~ 1 + (1 | batch/cask)", c("batch", "cask"), "batch"),
  model("oats", "Oats_unbalanced", "yield ~ nitro + Variety + (1 | Block/Variety)",
        c("Block", "Variety"), "Block", reml = FALSE)
)

answers <- lapply(models, function(m) {
  data <- read(m$data, m$factors)
  if (!is.null(m$rows)) data <- data[m$rows, ]
  fitted <- lmer(as.formula(m$formula), data, REML = m$reml)
  theta <- round(getME(fitted, "theta"), 3)
  held <- lmer(as.formula(m$formula), data, REML = m$reml, start = theta,
               control = lmerControl(optimizer = NULL, calc.derivs = FALSE,
                                     check.conv.grad = "ignore"))
  stopifnot(identical(unname(getME(held, "theta")), unname(theta)))
  p <- length(fixef(held))
  kinds <- lapply(c(CR0 = "CR0", CR1 = "CR1", CR2 = "CR2", CR3 = "CR3"), function(kind) {
    V <- vcovCR(held, cluster = data[[m$cluster]], type = kind)
    tests <- coef_test(held, vcov = V, test = "Satterthwaite")
    out <- list(vcov = unname(as.matrix(V)), df = tests$df)
    if (p > 2) {
      joint <- Wald_test(held, constrain_zero(2:p), vcov = V, test = "HTZ")
      out <- c(out, F = joint$Fstat, den = joint$df_denom)
    }
    out
  })
  c(m[c("name", "data", "cluster", "reml", "rows")], formula = m$formula,
    list(factors = m$factors, theta = unname(theta), names = names(theta),
         beta = unname(fixef(held)), sigma = sigma(held), kinds = kinds))
})
write_json(answers, file.path(here, "reference_robust.json"), digits = I(15), auto_unbox = TRUE,
           null = "null", matrix = "rowmajor")
